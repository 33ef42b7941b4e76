"""The files of all pieces, with their index: put, deleted, counted, in this order. I/O thread only.

    put:    <id>.tmp written, synced -> renamed to <id>.kv -> directory synced -> row in the index
    delete: the file -> directory synced -> the row
    start:  half-written files deleted, files and rows made to agree (`start.py`)

Every fault of the disk ends in `guarded`: the piece is dropped, the state says why, and after a
wait that grows from a second to a minute everything is looked at anew.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from everwarm.cache.disk import blob
from everwarm.cache.disk.budget import DiskBudget
from everwarm.cache.disk.files import Files
from everwarm.cache.disk.health import DiskLimits, DiskStats, Health, Rate
from everwarm.cache.disk.index import Index, Stored
from everwarm.cache.disk.reader import PieceReader
from everwarm.cache.disk.saver import Saver
from everwarm.cache.disk.shelf import Shelf
from everwarm.cache.disk.start import Start, take_up
from everwarm.errors import ConfigError

T = TypeVar("T")
N = TypeVar("N")


class PieceFiles:
    """Live. Any thread may ask for `stats`. `uses`: a count of requests that used pieces."""

    def __init__(
        self,
        root: Path,
        limits: DiskLimits,
        files: Files,
        reader: PieceReader,
        clock: Callable[[], float],
        wall: Callable[[], float],
        is_busy: Callable[[], bool],
    ) -> None:
        self._root, self._limits, self._files, self._reader = root, limits, files, reader
        self._directory = root / "pieces"
        self._health = Health(clock)
        self.saver = Saver(self._directory, files, reader, self._health, clock, is_busy)
        self.budget = DiskBudget(limits, files, self._directory, wall)
        self.shelf = Shelf()
        self._start: Start | None = None
        self.uses = 0
        self._n_written = self.n_dropped = self._n_evicted = self._n_damaged = 0
        self._rate = Rate()

    def make_room(self, length: int, keep: str | None) -> bool:
        """Delete what is worth least. False: there cannot be room, and the state says why."""
        if not self.budget.may_write(length):
            self._health.note("resting", "the day's write budget is used up")
            return False
        used = self.used()
        allowed = self.budget.allowed(used)
        if used + length <= allowed:
            return True
        going = self.shelf.to_evict(used + length - allowed, self.uses, keep)
        if going is None or length > allowed:
            self._health.note("full", f"no room for {length} bytes within {max(allowed, 0)}")
            return False
        self._n_evicted += len(going)
        self.delete(going)
        return True

    def used(self) -> int:
        """Bytes of all files here."""
        other = self._start.other_bytes if self._start else 0
        return self.shelf.nbytes + self.saver.debris_bytes + other

    def has_room_to_join(self, length: int) -> bool:
        """Joining evicts nothing and takes at most half of the day's writes: it is optional."""
        if not self.budget.may_write(length, share=2):
            return False
        used = self.used()
        return used + length <= self.budget.allowed(used)

    def put(self, stored: Stored, views: list[memoryview]) -> None:
        """Save a file, head first, and commit its row. There is room for it."""
        file_id, length = stored.file_id, stored.nbytes
        stored = self.shelf.with_hint(stored)
        began = time.perf_counter()
        blob.parse(bytes(views[0]), length)  # nothing is written that could not be read
        self.saver.save(file_id, views, length)
        try:
            self.index.add([stored], day=self.budget.day, written=length)
        except sqlite3.Error:
            self.saver.delete(self.saver.path(file_id), length)
            raise
        self._rate.add(length, time.perf_counter() - began)
        self.shelf.add(stored)
        self._n_written += 1
        self.budget.wrote(length)
        self._health.fine()

    def stats(self, queued_bytes: int) -> DiskStats:
        """The present figures. Never waits."""
        return DiskStats(
            state=self._health.state,
            why=self._health.why,
            pieces=len(self.shelf),
            nbytes=self.used(),
            budget_bytes=self.budget.nbytes,
            queued_bytes=queued_bytes,
            written_today_bytes=self.budget.written_today_bytes,
            write_budget_bytes=self._limits.write_budget_bytes,
            read_bytes_per_s=self._reader.rate.bytes_per_s,
            write_bytes_per_s=self._rate.bytes_per_s,
            written=self._n_written,
            dropped=self.n_dropped,
            evicted=self._n_evicted,
            damaged=self._n_damaged,
            adrift=self.shelf.n_adrift,
            errors=self._health.errors,
        )

    def delete(self, file_ids: Sequence[str]) -> None:
        """Files first, then rows: a power loss in between must not bring a deleted piece back."""
        deleted: list[str] = []
        try:
            for file_id in file_ids:
                with suppress(FileNotFoundError):
                    self._files.delete(self.saver.path(file_id))
                deleted.append(file_id)
        finally:
            for file_id in deleted:
                self.shelf.drop(file_id)
        if deleted:
            self._files.sync_directory(self._directory)
            self.index.delete(deleted)

    def delete_damaged(self, file_id: str) -> None:
        """Delete a damaged piece, once; what stood on it is adrift until it is written again."""
        if file_id in self.shelf:
            self._n_damaged += 1
            self.guarded(lambda: self.delete([file_id]), None)
            if file_id in self.shelf:  # it could not be deleted: at least it is not read again
                self.shelf.drop(file_id)

    def start(self) -> None:
        """Take the directory. ConfigError: another process has it."""
        self.stop()
        try:
            self._start = take_up(self._root, self._files, self._reader)
            self.budget.start(self._start.index, self._start.nbytes)
        except (OSError, sqlite3.Error) as e:
            self._health.fault(e)
            self.stop()
            return
        self.shelf = self._start.shelf
        self._n_damaged += self._start.n_damaged
        self.saver.drop_debris()
        self.uses = max((self.shelf.get(x).used for x in self.shelf.ids()), default=0)

    def stop(self) -> None:
        """Give the directory back."""
        if self._start is not None:
            with suppress(sqlite3.Error):
                self._start.index.close()
            with suppress(OSError):
                self._files.close(self._start.lock)
            self._start = None
            self.budget.stop()

    @property
    def index(self) -> Index:
        assert self._start is not None, "only used within `guarded`"
        return self._start.index

    def guarded(self, change: Callable[[], T], nothing: N) -> T | N:
        """Make a change, if the disk can be used now. Where it fails, `nothing` was changed."""
        if not self._is_ready():
            return nothing
        try:
            return change()
        except (OSError, sqlite3.Error) as e:
            self._health.fault(e)
            if isinstance(e, sqlite3.Error) or self._health.state == "missing":
                self.stop()  # index or directory may be gone: start anew next time
            return nothing

    def _is_ready(self) -> bool:
        """Whether the disk can be used now; the directory is taken where that is not so yet."""
        self.saver.begin()
        if not self._health.may_try():
            return False
        if self._start is None:
            try:
                self.start()
            except ConfigError as e:  # removed while running, and made anew by somebody else
                self._health.note("failing", e.message)
        return self._start is not None
