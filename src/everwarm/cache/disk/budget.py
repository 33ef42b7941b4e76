"""How many bytes the files may take, and how many may be written in a day. I/O thread only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from everwarm.cache.disk.files import Files
from everwarm.cache.disk.health import DiskLimits
from everwarm.cache.disk.index import Index

DAY_S: Final = 86_400
KEEP_FREE_BYTES: Final = 10 * 2**30
KEEP_FREE_SHARE: Final = 20
BUDGET_SHARE: Final = 4


class DiskBudget:
    """The limits of one directory. `nbytes`: what its files may take. Any thread may look at it."""

    def __init__(
        self, limits: DiskLimits, files: Files, directory: Path, wall: Callable[[], float]
    ) -> None:
        self._limits, self._files, self._directory, self._wall = limits, files, directory, wall
        self._index: Index | None = None
        self._written = 0
        self.day = -1  # for which `_written` counts
        self._keep_free_bytes = 0
        self.nbytes = 0

    def start(self, index: Index, used: int) -> None:
        """Choose the limits for a directory with so many bytes in it."""
        limits = self._limits
        free, total = self._files.room(self._directory)
        self.nbytes = min((free + used) // BUDGET_SHARE, limits.most_bytes)
        if limits.budget_bytes is not None:
            self.nbytes = limits.budget_bytes
        self._keep_free_bytes = max(KEEP_FREE_BYTES, total // KEEP_FREE_SHARE)
        if limits.keep_free_bytes is not None:
            self._keep_free_bytes = limits.keep_free_bytes
        self._index, self.day = index, -1
        self._count_day()  # for who looks before anything is written

    def stop(self) -> None:
        """The directory was given back."""
        self._index, self.nbytes = None, 0

    def allowed(self, used: int) -> int:
        """Bytes that the files may take now, of which they take so many."""
        free, _ = self._files.room(self._directory)
        return min(self.nbytes, used + free - self._keep_free_bytes)

    def may_write(self, nbytes: int, share: int = 1) -> bool:
        """Whether so much more may be written today, within one part in `share` of the budget."""
        return self._count_day() + nbytes <= self._limits.write_budget_bytes // share

    def wrote(self, nbytes: int) -> None:
        """Count what was written. Its row is in the index."""
        self._written += nbytes

    @property
    def written_today_bytes(self) -> int:
        """As last counted. Any thread may look at it."""
        return self._written if self.day == self._today() else 0

    def _today(self) -> int:
        return int(self._wall() // DAY_S)

    def _count_day(self) -> int:
        """Bytes written today."""
        today = self._today()
        if today != self.day:
            assert self._index is not None, "only used behind `start`"
            self.day, self._written = today, self._index.written_on(today)
        return self._written
