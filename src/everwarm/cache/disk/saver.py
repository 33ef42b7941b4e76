"""Saves a file whole and durable under its final name, or not at all. I/O thread only.

    <id>.tmp written in slabs, synced -> renamed to <id>.kv -> directory synced

What cannot be deleted after a fault is debris: it counts as used, and is deleted later.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from everwarm.cache.disk.files import SLAB, Files, slabs
from everwarm.cache.disk.health import Health
from everwarm.cache.disk.reader import PieceReader

PAUSE_S: Final = 1.0
"""A write lets reads go first, but goes on after this long between two batches."""

REST: Final = 4.0
"""How long a write rests beside a running reply, as a multiple of the time that a slab took."""
MOST_REST_S: Final = 0.02
"""A disk that needs longer than this for one slab disturbs no running reply anyway."""


class Saver:
    """`moved_at`: when the disk last took something. Any thread may look at it."""

    def __init__(
        self,
        directory: Path,
        files: Files,
        reader: PieceReader,
        health: Health,
        clock: Callable[[], float],
        is_busy: Callable[[], bool],
    ) -> None:
        self._directory, self._files, self._reader = directory, files, reader
        self._health, self._clock, self._is_busy = health, clock, is_busy
        self._slab = memoryview(mmap.mmap(-1, SLAB))  # begins at a page, as direct writes must
        self._debris: dict[Path, int] = {}
        self.moved_at = clock()

    @property
    def debris_bytes(self) -> int:
        return sum(list(self._debris.values()))

    def begin(self) -> None:
        """Note that something is about to be done on the disk."""
        self.moved_at = self._clock()

    def path(self, file_id: str) -> Path:
        return self._directory / f"{file_id}.kv"

    def save(self, file_id: str, views: Sequence[memoryview], length: int) -> None:
        """Save a whole file under its final name, durably. OSError: nothing of it is left."""
        temp, final = self._directory / f"{file_id}.tmp", self.path(file_id)
        try:
            fd = self._files.create(temp)
            try:
                for slab in slabs(views, self._slab):
                    self._append(fd, slab)
                self._files.sync(fd)
            finally:
                self._files.close(fd)
            self._files.rename(temp, final)
            self._files.sync_directory(self._directory)
        except OSError:
            self.delete(temp, length)
            self.delete(final, length)
            raise

    def _append(self, fd: int, slab: memoryview) -> None:
        """Write when no read runs; beside a running reply past the page cache, with rests."""
        self._reader.is_quiet.wait(PAUSE_S)
        began = time.perf_counter()
        if self._is_busy():
            self._files.pass_cache(fd)
        self._files.write(fd, [slab])
        self.moved_at = self._clock()
        if self._is_busy():
            time.sleep(min(REST * (time.perf_counter() - began), MOST_REST_S))

    def delete(self, path: Path, nbytes: int) -> None:
        """Delete a file that may be there; later, if it cannot be done now."""
        self._debris[path] = nbytes
        try:
            self.delete_debris()
        except OSError:
            self._health.errors += 1

    def delete_debris(self) -> None:
        """Delete what could not be deleted before."""
        for path in list(self._debris):
            with suppress(FileNotFoundError):
                self._files.delete(path)
            del self._debris[path]

    def drop_debris(self) -> None:
        """Count no debris any more: a start has looked at all files anew."""
        self._debris = {}
