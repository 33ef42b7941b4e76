"""Reads pieces from disk into the caller's buffers, every byte checked before it is handed over.

A few threads of its own, so that reads overtake writes: one reads while another sums. Knows the
files' names and their format; what is there and what becomes of a damaged file is `disk.py`'s.
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from everwarm.cache.disk import blob
from everwarm.cache.disk.blob import Blob
from everwarm.cache.disk.files import Files, batches
from everwarm.cache.disk.health import Rate
from everwarm.errors import CacheFault

_FILE_ID: Final = re.compile(r"[0-9a-f]{32}")
N_THREADS: Final = 2
Loaded = tuple[Blob, list[bytearray]]
"""A piece and its arrays' bytes."""
Batch = tuple[int, list[memoryview], list[str]]
"""Position in the file, where its bytes go, their checksums."""


@dataclass(eq=False, slots=True)
class PieceRead:
    """One read under way. Live: shared by the reader threads, under `lock`."""

    file_id: str
    fd: int
    left: int
    nbytes: int
    done: Future[Any]
    result: Any
    began: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    error: Exception | None = None


class PieceReader:
    """`is_quiet` is set while nobody reads."""

    def __init__(
        self,
        files: Files,
        directory: Path,
        on_damage: Callable[[str], object],
        n_threads: int = N_THREADS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._directory = directory
        self._on_damage = on_damage
        self._pool = ThreadPoolExecutor(n_threads, "everwarm-read")
        self._clock = clock
        self._moved_at = 0.0
        self._active = 0
        self._lock = threading.Lock()
        self.is_quiet = threading.Event()
        self.is_quiet.set()
        self.rate = Rate()

    def open(self, file_id: str) -> tuple[int, Blob]:
        """A descriptor and the checked head. CacheFault: no such piece, or not what it says."""
        if not _FILE_ID.fullmatch(file_id):
            raise CacheFault("no id of ours")
        fd, length = self._files.open(self._directory / f"{file_id}.kv")
        try:
            first = bytearray(min(blob.FIRST_BYTES, length))
            self._files.read(fd, [memoryview(first)], 0)
            head = bytearray(blob.head_length(first, length))
            self._files.read(fd, [memoryview(head)], 0)
            found = blob.parse(bytes(head), length)
            if found.file_id != file_id:
                raise CacheFault("the file has another's name")
        except (OSError, CacheFault):
            self.give_back(fd)
            raise
        return fd, found

    def give_back(self, fd: int) -> None:
        """Close what `open` gave."""
        with suppress(OSError):  # nothing was written: there is nothing to lose
            self._files.close(fd)

    @property
    def stalled_s(self) -> float:
        """For how long reads have been under way and not one byte of any has come; 0: none is."""
        return self._clock() - self._moved_at if self._active else 0.0

    def head(self, file_id: str) -> Future[Blob]:
        """What a piece holds, for making room for it."""
        try:
            return self._pool.submit(self._head, file_id)
        except RuntimeError:
            closed: Future[Blob] = Future()
            closed.set_exception(CacheFault("the store is closed"))
            return closed

    def _head(self, file_id: str) -> Blob:
        try:
            fd, found = self.open(file_id)
        except (OSError, CacheFault) as e:
            raise self._judge(file_id, e) from None
        self.give_back(fd)
        return found

    def read(self, file_id: str, into: Sequence[Any]) -> Future[None]:
        """Fill these buffers, one for each array. CacheFault: what they hold now is worth nothing.

        Done means checked. The buffers belong to the reader until then.
        """
        return self._submit(file_id, into)

    def load(self, file_id: str) -> Future[Loaded]:
        """As `read`, into buffers made for it: the piece, and one buffer for each array."""
        return self._submit(file_id, None)

    def _submit(self, file_id: str, into: Sequence[Any] | None) -> Future[Any]:
        done: Future[Any] = Future()
        with self._lock:
            if not self._active:
                self._moved_at = self._clock()
            self._active += 1
            self.is_quiet.clear()
        try:
            self._pool.submit(self._begin, file_id, into, done)
        except RuntimeError:
            self._settle(done, CacheFault("the store is closed"))
        return done

    def _begin(self, file_id: str, into: Sequence[Any] | None, done: Future[Any]) -> None:
        began = time.perf_counter()
        try:
            fd, found = self.open(file_id)
        except (OSError, CacheFault) as e:
            self._settle(done, self._judge(file_id, e))
            return
        try:
            made = [bytearray(a.nbytes) for a in found.arrays] if into is None else into
            views = blob.flat(found.arrays, made)
            if any(v.readonly for v in views if len(v)):
                raise ValueError("a buffer that cannot be written to")
            parts = list(_batches(found, views))
        except (ValueError, TypeError, MemoryError) as e:
            self.give_back(fd)
            self._settle(done, CacheFault("no memory") if isinstance(e, MemoryError) else e)
            return
        result = (found, made) if into is None else None
        read = PieceRead(file_id, fd, len(parts), found.nbytes, done, result, began)
        for batch in parts:
            self._pool.submit(self._part, read, batch)
        if not parts:
            self._end(read)

    def _part(self, read: PieceRead, batch: Batch) -> None:
        try:
            if read.error is None:
                self._fill(read.fd, batch)
                self._moved_at = self._clock()
        except (OSError, CacheFault) as e:
            read.error = e
        with read.lock:
            read.left -= 1
            is_last = read.left == 0
        if is_last:
            self._end(read)

    def _fill(self, fd: int, batch: Batch) -> None:
        at, views, sums = batch
        self._files.read(fd, views, at)
        for view, expected in zip(views, sums, strict=True):
            if blob.checksum(view) != expected:
                raise CacheFault("a checksum is wrong")

    def _end(self, read: PieceRead) -> None:
        self.give_back(read.fd)
        if read.error is None:
            self.rate.add(read.nbytes, time.perf_counter() - read.began)
            self._settle(read.done, None, read.result)
        else:
            self._settle(read.done, self._judge(read.file_id, read.error))

    def _settle(self, done: Future[Any], error: Exception | None, result: Any = None) -> None:
        with self._lock:
            self._active -= 1
            if not self._active:
                self.is_quiet.set()
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def _judge(self, file_id: str, e: Exception) -> CacheFault:
        """The fault to report; a file that will not get better is reported for removal."""
        passing = isinstance(e, OSError) and e.errno not in (errno.ENOENT, errno.EIO, errno.ELOOP)
        if not passing:
            self._on_damage(file_id)
        return e if isinstance(e, CacheFault) else CacheFault(f"reading: {e}")

    def take(self, file_id: str) -> Loaded:
        """As `load`, on the caller's thread and not part of the rate. CacheFault or OSError."""
        fd, found = self.open(file_id)
        try:
            made = [bytearray(a.nbytes) for a in found.arrays]
            for batch in _batches(found, blob.flat(found.arrays, made)):
                self._fill(fd, batch)
        finally:
            self.give_back(fd)
        return found, made

    def check(self, file_id: str) -> None:
        """Read and sum a whole piece on the caller's thread. CacheFault or OSError."""
        fd, found = self.open(file_id)
        try:
            room = memoryview(bytearray(min(blob.CHUNK, found.nbytes)))
            at = found.data_start
            for a, sums in zip(found.arrays, found.sums, strict=True):
                for n, expected in enumerate(sums):
                    view = room[: min(blob.CHUNK, a.nbytes - n * blob.CHUNK)]
                    self._fill(fd, (at, [view], [expected]))
                    at += len(view)
        finally:
            self.give_back(fd)

    def close(self, wait_s: float | None = None) -> bool:
        """Finish what was asked for, then end the threads. False: the disk took longer."""
        is_done = self.is_quiet.wait(wait_s)
        self._pool.shutdown(wait=is_done, cancel_futures=not is_done)
        return is_done


def _batches(found: Blob, views: Sequence[memoryview]) -> Iterator[Batch]:
    sums = iter([s for own in found.sums for s in own])
    at = found.data_start
    for group in batches(views):
        yield at, group, [next(sums) for _ in group]
        at += sum(map(len, group))
