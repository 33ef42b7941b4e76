"""Pieces of cache on disk: they survive the process. Plain bytes only, no MLX.

1. A file is never changed; a piece that is listed was whole when it was listed.
2. A piece is taken only where everything above it is here; what others stand on goes after them.
3. The files never take more than the budget and one piece. A fault drops the piece, not the caller.
4. One thread writes and owns the index (`writer.py`), in the order of the calls. Reads have threads
   of their own (`reader.py`).

The directory may be deleted while nobody has it open. What is kept and for whom is the caller's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from everwarm.cache.disk import blob
from everwarm.cache.disk.blob import Blob, Layer, PieceRecord
from everwarm.cache.disk.files import Files, OsFiles
from everwarm.cache.disk.health import DiskLimits, DiskStats, Verified
from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.join import Joined
from everwarm.cache.disk.reader import Loaded, PieceReader
from everwarm.cache.disk.writer import PieceWriter
from everwarm.errors import ConfigError
from everwarm.job import Path as TokenPath

T = TypeVar("T")


class DiskStore:
    """Make one with `open`. Every method may be called from any thread and returns at once.

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
        self._clock = clock
        self._queued, self._queued_at = 0, 0.0
        self._lock = threading.Lock()
        self._is_closed = False
        self.is_busy = False
        self._reader = PieceReader(files, root / "pieces", self._report_damage, clock=clock)
        self._writer = PieceWriter(
            root, limits, files, self._reader, clock, wall, lambda: self.is_busy
        )
        self._io = ThreadPoolExecutor(1, "everwarm-disk")

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
            store._io.submit(store._writer.start).result()
        except ConfigError:
            store._reader.close()
            store._io.shutdown()
            raise
        return store

    # What is there

    def pieces(self, fingerprint: bytes, wait_s: float | None = None) -> list[Stored]:
        """A model's pieces that can be restored, parents before children. Waits for writes.

        None of them where that takes longer than `wait_s`.
        """
        if self._is_closed:
            return []
        with suppress(TimeoutError):
            return self._io.submit(self._writer.usable, fingerprint).result(wait_s)
        return []

    def head(self, file_id: str) -> Future[Blob]:
        """A piece's layers and arrays, to make room for them. CacheFault as with `read`."""
        return self._reader.head(file_id)

    def read(self, file_id: str, into: Sequence[Any]) -> Future[None]:
        """Fill these writable buffers, one per array of `head(...).arrays`, and check every byte.

        CacheFault: the piece is gone or damaged (then it is removed); the buffers hold nothing.
        """
        return self._reader.read(file_id, into)

    def load(self, file_id: str) -> Future[Loaded]:
        """As `head` and `read` in one, into buffers made for it."""
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
        return self._clock() - max(self._queued_at, self._writer.moved_at)

    def stats(self) -> DiskStats:
        """The present state. Never waits."""
        return self._writer.stats(self._queued)

    # Changes: all on the I/O thread, in order

    def write(
        self, record: PieceRecord, layers: tuple[Layer, ...], buffers: Sequence[Any]
    ) -> Future[str | None]:
        """Keep a piece. The file's id once it is durable, None if it was dropped.

        The buffers, one per array in `blob.arrays_of(layers)`, must not change until then. A piece
        that is here already is not written again. ValueError: the parts of the call do not
        fit one another.
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
            self._writer.n_dropped += 1
            return _done(None)
        return self._io.submit(self._write, record, layers, views, nbytes)

    def touch(self, file_ids: Iterable[str]) -> Future[None]:
        """These were used by one request, just now."""
        return self._later(self._writer.touch, file_ids, None)

    def pin(self, file_ids: Iterable[str]) -> Future[None]:
        """Keep these whatever the budget says."""
        return self._later(lambda ids: self._writer.pin(ids, True), file_ids, None)

    def unpin(self, file_ids: Iterable[str]) -> Future[None]:
        return self._later(lambda ids: self._writer.pin(ids, False), file_ids, None)

    def delete(self, file_ids: Iterable[str]) -> Future[frozenset[str]]:
        """Remove these from the disk, but not what other pieces stand on. Gives back which went."""
        return self._later(self._writer.delete, file_ids, frozenset())

    def drop(self, paths: Iterable[TokenPath]) -> Future[frozenset[str]]:
        """Remove what holds tokens of these paths alone, and all that stands on it: which went."""
        nothing: frozenset[str] = frozenset()
        if self._is_closed:
            return _done(nothing)
        given = tuple(paths)
        return self._io.submit(
            self._writer.guarded, lambda _: self._writer.drop(given), (), nothing
        )

    def clear(self) -> Future[int]:
        """Remove everything; how many pieces."""
        return self._later(self._writer.clear, (), 0)

    def prune(self) -> Future[int]:
        """Remove what is of no use or over the budget; how many pieces."""
        return self._later(self._writer.prune, (), 0)

    def join(self) -> Future[Joined | None]:
        """Write small segments of one path as one piece more. None: there are no such now."""
        return self._later(self._writer.join, (), None)

    def retire(self, file_ids: Iterable[str]) -> Future[None]:
        """Remove what was joined. The caller makes sure that nobody is about to read these."""
        return self._later(self._writer.retire, file_ids, None)

    def verify(self) -> Future[Verified]:
        """Read everything; what is damaged is removed. Takes as long as reading takes."""
        return _done(Verified(0, ())) if self._is_closed else self._io.submit(self._writer.verify)

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
        stopped = self._io.submit(self._writer.stop)
        try:
            stopped.result(None if until is None else max(until - time.monotonic(), 0.0))
        except TimeoutError:
            self._io.shutdown(wait=False)
            return False
        self._io.shutdown()
        return is_read

    def _write(
        self, record: PieceRecord, layers: tuple[Layer, ...], views: list[memoryview], nbytes: int
    ) -> str | None:
        try:
            return None if self._is_closed else self._writer.write(record, layers, views)
        finally:
            with self._lock:
                self._queued -= nbytes

    def _later(
        self, change: Callable[[Sequence[str]], T], ids: Iterable[str], nothing: T
    ) -> Future[T]:
        if self._is_closed:
            return _done(nothing)
        return self._io.submit(self._writer.guarded, change, tuple(ids), nothing)

    def _report_damage(self, file_id: str) -> None:
        if not self._is_closed:
            self._io.submit(self._writer.set_aside, file_id)


def _done(value: T) -> Future[T]:
    done: Future[T] = Future()
    done.set_result(value)
    return done
