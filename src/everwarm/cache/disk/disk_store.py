"""Pieces of cache on disk: they survive the process. Plain bytes only, no MLX.

1. A file is never changed; a piece that is listed was whole when it was listed.
2. A piece is taken only where everything above it is here; what others stand on goes after them.
3. The files never take more than the budget and one piece. A fault drops the piece, not the caller.
4. One thread, the I/O thread, changes files and index (`pieces.py`), in the order of the calls.
   Reads have threads of their own (`reader.py`).

The directory may be deleted while nobody has it open. Which pieces are worth keeping, and for whom,
the caller decides.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from everwarm.cache.disk import blob
from everwarm.cache.disk.blob import Layer, PieceRecord
from everwarm.cache.disk.files import Files, OsFiles
from everwarm.cache.disk.health import DiskLimits, DiskStats, Verified
from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.join import Joined, join
from everwarm.cache.disk.joinable import doubles, runs
from everwarm.cache.disk.pieces import PieceFiles
from everwarm.cache.disk.reader import Loaded, PieceReader
from everwarm.errors import CacheFault, ConfigError
from everwarm.job import Path as TokenPath

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N")


def _on_io_thread(
    nothing: N,
) -> Callable[
    [Callable[Concatenate[DiskStore, P], T]], Callable[Concatenate[DiskStore, P], Future[T | N]]
]:
    """Make a method run on the I/O thread, behind those called before; its caller gets a future.

    `nothing`: the result where the store is closed or the disk fails, and nothing was changed.
    """

    def decorate(
        change: Callable[Concatenate[DiskStore, P], T],
    ) -> Callable[Concatenate[DiskStore, P], Future[T | N]]:
        def call(self: DiskStore, /, *args: P.args, **kwargs: P.kwargs) -> Future[T | N]:
            if self._is_closed:
                return _done(nothing)
            return self._io.submit(
                self._pieces.guarded, lambda: change(self, *args, **kwargs), nothing
            )

        call.__doc__ = change.__doc__
        return call

    return decorate


class DiskStore:
    """Make one with `open`. Every public method may be called from any thread.

    `is_busy`: somebody computes on this machine, and nothing is joined.
    """

    def __init__(
        self,
        root: Path,
        limits: DiskLimits,
        files: Files,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.root, self.limits = root, limits
        self.is_busy = False
        self._clock = clock
        self._queued, self._queued_at = 0, 0.0
        self._lock = threading.Lock()
        self._is_closed = False
        self._io = ThreadPoolExecutor(1, "everwarm-disk")
        self._reader = PieceReader(files, root / "pieces", self._report_damage, clock=clock)
        self._pieces = PieceFiles(
            root, limits, files, self._reader, clock, wall, lambda: self.is_busy
        )

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        limits: DiskLimits | None = None,
        files: Files | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> DiskStore:
        """Take a directory. One that cannot be used gives a store that says so and keeps nothing.

        ConfigError: another process has it.
        """
        store = cls(root, limits or DiskLimits(), files or OsFiles(), clock, wall)
        try:
            store._io.submit(store._pieces.start).result()
        except ConfigError:
            store._reader.close()
            store._io.shutdown()
            raise
        return store

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was asked for so far is done; False if time ran out."""
        try:
            if not self._is_closed:
                self._io.submit(lambda: None).result(timeout)
        except TimeoutError:
            return False
        return True

    def close(self, wait_s: float | None = None) -> bool:
        """Finish the present write, drop the queued ones, give the directory back.

        False: the disk took longer than `wait_s`. Its threads, and the lock, stay until it answers
        or the process is ended with `os._exit`.
        """
        if self._is_closed:
            return True
        self._is_closed = True
        until = None if wait_s is None else time.monotonic() + wait_s
        is_read = self._reader.close(wait_s)
        stopped = self._io.submit(self._pieces.stop)
        try:
            stopped.result(None if until is None else max(until - time.monotonic(), 0.0))
        except TimeoutError:
            self._io.shutdown(wait=False)
            return False
        self._io.shutdown()
        return is_read

    # What is there

    def stats(self) -> DiskStats:
        """The present figures. Never waits."""
        return self._pieces.stats(self._queued)

    def pieces(self, fingerprint: bytes, wait_s: float | None = None) -> list[Stored]:
        """A model's pieces that can be restored, parents before children. Waits for writes.

        None of them where that takes longer than `wait_s`.
        """
        if self._is_closed:
            return []
        with suppress(TimeoutError):
            return self._io.submit(lambda: self._pieces.shelf.pieces(fingerprint)).result(wait_s)
        return []

    def load(self, file_id: str) -> Future[Loaded]:
        """Read a piece, every byte checked.

        CacheFault: it is gone or damaged; a damaged one is deleted.
        """
        return self._reader.load(file_id)

    @property
    def read_stalled_s(self) -> float:
        """For how long reads have been under way and not one byte of any has come."""
        return self._reader.stalled_s

    @property
    def write_stalled_s(self) -> float:
        """For how long pieces have been on their way and the disk has taken nothing."""
        if not self._queued:
            return 0.0
        return self._clock() - max(self._queued_at, self._pieces.saver.moved_at)

    # Writing a piece

    def write(
        self, record: PieceRecord, layers: tuple[Layer, ...], buffers: Sequence[Any]
    ) -> Future[str | None]:
        """Keep a piece. The file's id once it is durable, None if it was dropped.

        The buffers, one per array in `blob.arrays_of(layers)`, must not change until then. A piece
        that is here already is not written again. ValueError: record, layers and buffers do not
        agree.
        """
        blob.check_names(record, layers)
        views = blob.flat(blob.arrays_of(layers), buffers)
        nbytes = sum(map(len, views))
        with self._lock:
            is_refused = self._is_closed or self._queued + nbytes > self.limits.queue_bytes
            if not self._queued:
                self._queued_at = self._clock()
            self._queued += 0 if is_refused else nbytes
        if is_refused:
            self._pieces.n_dropped += 1
            return _done(None)
        return self._io.submit(self._write, record, layers, views, nbytes)

    def _write(
        self, record: PieceRecord, layers: tuple[Layer, ...], views: list[memoryview], nbytes: int
    ) -> str | None:
        try:
            if self._is_closed:
                return None
            file_id = self._pieces.guarded(lambda: self._keep(record, layers, views), None)
            self._pieces.n_dropped += file_id is None
            return file_id
        finally:
            with self._lock:
                self._queued -= nbytes

    def _keep(
        self, record: PieceRecord, layers: tuple[Layer, ...], views: list[memoryview]
    ) -> str | None:
        if (same := self._pieces.shelf.same(record)) is not None:
            return same
        self._pieces.saver.delete_debris()
        has_path, below = self._pieces.shelf.stands_on(record)
        file_id = secrets.token_hex(16)
        if not has_path:
            return None
        head = blob.encode(file_id, record, layers, views)
        length = len(head) + sum(map(len, views))
        if not self._pieces.make_room(length, below):
            return None
        stored = Stored(file_id, record, length, self._pieces.uses)
        self._pieces.put(stored, [memoryview(head), *views])
        return file_id

    # Joining pieces

    @_on_io_thread(None)
    def join(self) -> Joined | None:
        """Write small segments of one path as one piece more. None: there are none, or no room."""
        self._pieces.saver.delete_debris()
        for run in runs(self._pieces.shelf.rows()):
            if self.is_busy:
                return None
            if (parts := self._read_run(run)) is None:
                continue
            record, layers, views = join(parts)
            if (same := self._pieces.shelf.same(record)) is None:
                same = secrets.token_hex(16)
                head = blob.encode(same, record, layers, views)
                length = len(head) + sum(map(len, views))
                if self.is_busy or not self._pieces.has_room_to_join(length):
                    return None
                used = max(s.used for s in run)
                made = Stored(same, record, length, used, any(s.is_pinned for s in run))
                self._pieces.put(made, [memoryview(head), *views])
            return Joined(self._pieces.shelf.get(same), frozenset(s.file_id for s in run))
        return None

    def _read_run(self, run: Sequence[Stored]) -> list[Loaded] | None:
        """A run's bytes, checked. A damaged piece is deleted, and then there is no run."""
        out = []
        for s in run:
            try:
                out.append(self._reader.read(s.file_id))
            except CacheFault:
                self._pieces.delete_damaged(s.file_id)
                return None
        return out

    # What is noted of pieces

    @_on_io_thread(None)
    def touch(self, file_ids: Collection[str]) -> None:
        """Note that one request used these just now."""
        self._pieces.uses += 1
        here = self._pieces.shelf.touch(file_ids, self._pieces.uses)
        self._pieces.index.touch(here, self._pieces.uses)

    @_on_io_thread(None)
    def pin(self, file_ids: Collection[str], is_pinned: bool) -> None:
        """Keep these whatever the budget says, or no longer."""
        self._pieces.index.pin(self._pieces.shelf.pin(file_ids, is_pinned), is_pinned)

    # Deleting pieces

    @_on_io_thread(frozenset[str]())
    def delete(self, file_ids: Collection[str]) -> frozenset[str]:
        """Delete these, but not what other pieces stand on; which were deleted."""
        return self._delete_free(file_ids)

    @_on_io_thread(frozenset[str]())
    def delete_paths(self, paths: Sequence[TokenPath]) -> frozenset[str]:
        """Delete what holds tokens of these paths alone, and all that stands on it; which were."""
        ends = (x for p in paths for x in self._pieces.shelf.on_path(p))
        return self._delete_free(self._pieces.shelf.with_all_above(ends))

    @_on_io_thread(0)
    def delete_all(self) -> int:
        """Delete everything; how many pieces."""
        return len(self._delete_free(self._pieces.shelf.ids()))

    @_on_io_thread(None)
    def delete_doubles(self, file_ids: Collection[str]) -> None:
        """Delete those of these whose rows a longer piece holds.

        The caller makes sure that nobody is about to read them.
        """
        spare = doubles(self._pieces.shelf.rows())
        self._pieces.delete([x for x in file_ids if x in spare])

    @_on_io_thread(0)
    def evict(self) -> int:
        """Delete what is of no use or over the budget; how many pieces."""
        self._pieces.saver.delete_debris()
        useless = self._pieces.shelf.adrift()
        self._pieces.delete(useless)
        over = self._pieces.used() - self._pieces.budget.nbytes
        going = (self._pieces.shelf.to_evict(over, self._pieces.uses) or []) if over > 0 else []
        self._pieces.delete(going)
        return len(useless) + len(going)

    def verify(self) -> Future[Verified]:
        """Read everything, and delete what is damaged. Takes as long as reading takes."""
        return _done(Verified(0, ())) if self._is_closed else self._io.submit(self._verify)

    def _verify(self) -> Verified:
        damaged = []
        for file_id in self._pieces.shelf.ids():
            self._pieces.saver.begin()
            try:
                self._reader.read(file_id)
            except (OSError, CacheFault):
                damaged.append(file_id)
                self._pieces.delete_damaged(file_id)
        return Verified(len(self._pieces.shelf), tuple(damaged))

    def _delete_free(self, file_ids: Collection[str]) -> frozenset[str]:
        """Delete those of these on which nothing else stands, out of the index's log too."""
        going = self._pieces.shelf.deletable(file_ids)
        self._pieces.delete(going)
        self._pieces.index.scrub()
        return frozenset(going)

    def _report_damage(self, file_id: str) -> None:
        if not self._is_closed:
            self._io.submit(self._pieces.delete_damaged, file_id)


def _done(value: T) -> Future[T]:
    done: Future[T] = Future()
    done.set_result(value)
    return done
