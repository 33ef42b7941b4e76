"""The writing side of the disk tier: what is kept, removed and made room for. I/O thread only.

    write: <id>.tmp written, synced -> renamed to <id>.kv -> directory synced -> row in the index
    start: leftovers removed, rows without a file dropped, files without a row taken up (`start.py`)

Every fault of the disk ends here: the piece is dropped, the state says why, and after a wait that
grows from a second to a minute everything is looked at anew.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from everwarm.cache.disk import blob
from everwarm.cache.disk.blob import Layer, PieceRecord
from everwarm.cache.disk.files import Files
from everwarm.cache.disk.health import DiskLimits, DiskStats, Health, Rate, Verified
from everwarm.cache.disk.index import Index, Stored
from everwarm.cache.disk.join import Joined, join
from everwarm.cache.disk.reader import Loaded, PieceReader
from everwarm.cache.disk.saver import Saver
from everwarm.cache.disk.shelf import Shelf
from everwarm.cache.disk.start import Start, start
from everwarm.errors import CacheFault, ConfigError
from everwarm.job import Path as TokenPath

DAY_S: Final = 86_400

T = TypeVar("T")


class PieceWriter:
    """Live. `stats` may be asked for by any thread."""

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
        self._is_busy = is_busy
        self._root, self._limits = root, limits
        self._files, self._reader, self._wall = files, reader, wall
        self._directory = root / "pieces"
        self._health = Health(clock)
        self._saver = Saver(self._directory, files, reader, self._health, clock, is_busy)
        self._shelf = Shelf()
        self._start: Start | None = None
        self._clock = 0
        self._today, self._written_today = -1, 0
        self.n_written = self.n_dropped = self.n_evicted = self.n_damaged = 0
        self._rate = Rate()

    def stats(self, queued_bytes: int) -> DiskStats:
        return DiskStats(
            state=self._health.state,
            why=self._health.why,
            pieces=len(self._shelf),
            nbytes=self._used(),
            budget_bytes=self._start.budget_bytes if self._start else 0,
            queued_bytes=queued_bytes,
            written_today_bytes=self._written_today if self._today == self._day() else 0,
            write_budget_bytes=self._limits.write_bytes_per_day,
            read_bytes_per_s=self._reader.rate.bytes_per_s,
            write_bytes_per_s=self._rate.bytes_per_s,
            written=self.n_written,
            dropped=self.n_dropped,
            evicted=self.n_evicted,
            damaged=self.n_damaged,
            adrift=self._shelf.n_adrift,
            errors=self._health.errors,
        )

    @property
    def moved_at(self) -> float:
        """When this last began something, or the disk took something."""
        return self._saver.moved_at

    def usable(self, fingerprint: bytes) -> list[Stored]:
        return self._shelf.usable(fingerprint)

    def start(self) -> None:
        self.stop()
        try:
            self._start = start(self._root, self._limits, self._files, self._reader)
            self._today = -1
            self._count_day()  # for who looks before anything is written
        except (OSError, sqlite3.Error) as e:
            self._health.fault(e)
            self.stop()
            return
        self._shelf = self._start.shelf
        self.n_damaged += self._start.n_damaged
        self._saver.forget_debris()
        self._clock = max((self._shelf.get(x).used for x in self._shelf.ids()), default=0)

    def stop(self) -> None:
        """Give the directory back."""
        if self._start is not None:
            with suppress(sqlite3.Error):
                self._start.index.close()
            with suppress(OSError):
                self._files.close(self._start.lock)
            self._start = None

    def _ready(self) -> Index | None:
        """The index, if the disk can be used now."""
        self._saver.begin()
        if not self._health.may_try():
            return None
        if self._start is None:
            try:
                self.start()
            except ConfigError as e:  # removed while running, and made anew by somebody else
                self._health.note("failing", e.message)
        return self._start.index if self._start is not None else None

    def _fault(self, e: OSError | sqlite3.Error) -> None:
        """Note it; where the index or the directory may be gone, start anew before the next use."""
        self._health.fault(e)
        if isinstance(e, sqlite3.Error) or self._health.state == "missing":
            self.stop()

    def guarded(self, change: Callable[[Sequence[str]], T], ids: Sequence[str], nothing: T) -> T:
        """Make a change; where the disk fails, `nothing` was changed."""
        if self._ready() is None:
            return nothing
        try:
            return change(ids)
        except (OSError, sqlite3.Error) as e:
            self._fault(e)
            return nothing

    @property
    def _index(self) -> Index:
        assert self._start is not None, "only used behind _ready"
        return self._start.index

    def write(
        self, record: PieceRecord, layers: tuple[Layer, ...], views: list[memoryview]
    ) -> str | None:
        try:
            file_id = None if self._ready() is None else self._keep(record, layers, views)
        except (OSError, sqlite3.Error) as e:
            self._fault(e)
            file_id = None
        self.n_dropped += file_id is None
        return file_id

    def _keep(
        self, record: PieceRecord, layers: tuple[Layer, ...], views: list[memoryview]
    ) -> str | None:
        if (same := self._shelf.same(record)) is not None:
            return same
        self._saver.sweep()
        has_path, below = self._shelf.stands_on(record)
        file_id = secrets.token_hex(16)
        if not has_path:
            return None
        head = blob.encode(file_id, record, layers, views)
        length = len(head) + sum(map(len, views))
        if not self._has_room(length, below):
            return None
        self._put(Stored(file_id, record, length, self._clock), [memoryview(head), *views])
        return file_id

    def _put(self, stored: Stored, views: list[memoryview]) -> None:
        """Save a file, head first, and commit its row. There is room for it."""
        file_id, length = stored.file_id, stored.nbytes
        stored = self._shelf.with_hint(stored)
        began = time.perf_counter()
        blob.parse(bytes(views[0]), length)  # nothing is written that could not be read
        self._saver.save(file_id, views, length)
        try:
            self._index.add([stored], day=self._today, written=length)
        except sqlite3.Error:
            self._saver.discard(self._saver.path(file_id), length)
            raise
        self._rate.add(length, time.perf_counter() - began)
        self._shelf.add(stored)
        self.n_written += 1
        self._written_today += length
        self._health.fine()

    def _used(self) -> int:
        other = self._start.other_bytes if self._start else 0
        return self._shelf.nbytes + self._saver.debris_bytes + other

    def _has_room(self, length: int, keep: str | None) -> bool:
        """Make room by letting go what is worth least. False: it cannot be had, and why is said."""
        if self._count_day() + length > self._limits.write_bytes_per_day:
            self._health.note("resting", "the day's write budget is used up")
            return False
        used, allowed = self._used(), self._allowed()
        if used + length <= allowed:
            return True
        going = self._shelf.to_free(used + length - allowed, self._clock, keep)
        if going is None or length > allowed:
            self._health.note("full", f"no room for {length} bytes within {max(allowed, 0)}")
            return False
        self.n_evicted += len(going)
        self._remove(going)
        return True

    def _day(self) -> int:
        return int(self._wall() // DAY_S)

    def _count_day(self) -> int:
        """Bytes written today."""
        day = self._day()
        if day != self._today:
            self._today, self._written_today = day, self._index.written_on(day)
        return self._written_today

    def _allowed(self) -> int:
        """Bytes that the files may take now."""
        assert self._start is not None
        free, _ = self._files.room(self._directory)
        return min(self._start.budget_bytes, self._used() + free - self._start.keep_free_bytes)

    def join(self, _: Sequence[str]) -> Joined | None:
        """Write some run of small segments as one piece. None: there is none, or no room.

        Joining lets nothing go and takes at most half of the day's writes: it is a convenience.
        """
        self._saver.sweep()
        for run in self._shelf.runs():
            if self._is_busy():
                return None
            if (parts := self._read_run(run)) is None:
                continue
            record, layers, views = join(parts)
            if (same := self._shelf.same(record)) is None:
                same = secrets.token_hex(16)
                head = blob.encode(same, record, layers, views)
                length = len(head) + sum(map(len, views))
                if self._is_busy() or not self._has_room_to_join(length):
                    return None
                used = max(s.used for s in run)
                made = Stored(same, record, length, used, any(s.is_pinned for s in run))
                self._put(made, [memoryview(head), *views])
            return Joined(self._shelf.get(same), frozenset(s.file_id for s in run))
        return None

    def _has_room_to_join(self, length: int) -> bool:
        return (
            self._count_day() + length <= self._limits.write_bytes_per_day // 2
            and self._used() + length <= self._allowed()
        )

    def _read_run(self, run: Sequence[Stored]) -> list[Loaded] | None:
        """A run's bytes, checked. A piece that is damaged is set aside, and there is no run."""
        out = []
        for s in run:
            try:
                out.append(self._reader.take(s.file_id))
            except CacheFault:
                self.set_aside(s.file_id)
                return None
        return out

    def retire(self, file_ids: Sequence[str]) -> None:
        """Of these, remove those whose rows a longer piece holds."""
        doubles = self._shelf.doubles()
        self._remove([x for x in file_ids if x in doubles])

    def _remove(self, file_ids: Sequence[str]) -> None:
        """Files first, then rows: a power loss in between must not bring a deleted piece back."""
        gone: list[str] = []
        try:
            for file_id in file_ids:
                with suppress(FileNotFoundError):
                    self._files.remove(self._saver.path(file_id))
                gone.append(file_id)
        finally:
            for file_id in gone:
                self._shelf.remove(file_id)
        if gone:
            self._files.sync_directory(self._directory)
            self._index.remove(gone)

    def delete(self, file_ids: Sequence[str]) -> frozenset[str]:
        going = self._shelf.free_to_go(file_ids)
        self._remove(going)
        self._index.scrub()
        return frozenset(going)

    def drop(self, paths: Sequence[TokenPath]) -> frozenset[str]:
        going = self._shelf.with_all_above(x for p in paths for x in self._shelf.on_path(p))
        return self.delete(going)

    def clear(self, _: Sequence[str]) -> int:
        return len(self.delete(self._shelf.ids()))

    def touch(self, file_ids: Sequence[str]) -> None:
        self._clock += 1
        self._index.touch(self._shelf.touch(file_ids, self._clock), self._clock)

    def pin(self, file_ids: Sequence[str], is_pinned: bool) -> None:
        self._index.pin(self._shelf.pin(file_ids, is_pinned), is_pinned)

    def prune(self, _: Sequence[str]) -> int:
        assert self._start is not None
        self._saver.sweep()
        useless = self._shelf.adrift()
        self._remove(useless)
        over = self._used() - self._start.budget_bytes
        going = (self._shelf.to_free(over, self._clock) or []) if over > 0 else []
        self._remove(going)
        return len(useless) + len(going)

    def verify(self) -> Verified:
        damaged = []
        for file_id in self._shelf.ids():
            self._saver.begin()
            try:
                self._reader.check(file_id)
            except (OSError, CacheFault):
                damaged.append(file_id)
                self.set_aside(file_id)
        return Verified(len(self._shelf), tuple(damaged))

    def set_aside(self, file_id: str) -> None:
        """Remove a damaged piece, once; what stood on it is adrift until it is written again."""
        if file_id in self._shelf:
            self.n_damaged += 1
            self.guarded(self._remove, [file_id], None)
            if file_id in self._shelf:  # it could not be removed: at least it is not read again
                self._shelf.remove(file_id)
