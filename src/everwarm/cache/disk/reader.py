"""Reads pieces from disk; every byte is checked before it is handed over.

The reader has a few threads of its own, so that reads overtake writes, and one thread reads while
another sums. It knows the files' names and their format. Which files there are, and what becomes of
a damaged one, is the business of `disk_store.py`.
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
from typing import Final

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

    fd: int
    n_left: int
    piece: Loaded
    done: Future[Loaded]
    began: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    error: Exception | None = None


class PieceReader:
    """`is_quiet` is set while nobody reads. `on_damage` hears of each damaged file."""

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

    def head(self, file_id: str) -> Blob:
        """A piece's checked head, read on the caller's thread. CacheFault or OSError."""
        fd, found = self._open(file_id)
        self._close(fd)
        return found

    def _open(self, file_id: str) -> tuple[int, Blob]:
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
            self._close(fd)
            raise
        return fd, found

    def _close(self, fd: int) -> None:
        with suppress(OSError):  # nothing was written: there is nothing to lose
            self._files.close(fd)

    @property
    def stalled_s(self) -> float:
        """For how long reads have been under way and not one byte of any has come; 0: none is."""
        return self._clock() - self._moved_at if self._active else 0.0

    def load(self, file_id: str) -> Future[Loaded]:
        """Read a piece. Done means that every byte was checked. CacheFault: it cannot be used."""
        done: Future[Loaded] = Future()
        with self._lock:
            if not self._active:
                self._moved_at = self._clock()
            self._active += 1
            self.is_quiet.clear()
        try:
            self._pool.submit(self._begin, file_id, done)
        except RuntimeError:
            self._settle(done, CacheFault("the store is closed"))
        return done

    def _begin(self, file_id: str, done: Future[Loaded]) -> None:
        began = time.perf_counter()
        try:
            fd, found = self._open(file_id)
        except (OSError, CacheFault) as e:
            self._settle(done, self._judge(file_id, e))
            return
        try:
            buffers = [bytearray(a.nbytes) for a in found.arrays]
            parts = list(_batches(found, blob.flat(found.arrays, buffers)))
        except MemoryError:
            self._close(fd)
            self._settle(done, CacheFault("no memory"))
            return
        read = PieceRead(fd, len(parts), (found, buffers), done, began)
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
            read.n_left -= 1
            is_last = read.n_left == 0
        if is_last:
            self._end(read)

    def _fill(self, fd: int, batch: Batch) -> None:
        at, views, sums = batch
        self._files.read(fd, views, at)
        for view, expected in zip(views, sums, strict=True):
            if blob.checksum(view) != expected:
                raise CacheFault("a checksum is wrong")

    def _end(self, read: PieceRead) -> None:
        self._close(read.fd)
        found = read.piece[0]
        if read.error is None:
            self.rate.add(found.nbytes, time.perf_counter() - read.began)
            self._settle(read.done, read.piece)
        else:
            self._settle(read.done, self._judge(found.file_id, read.error))

    def _settle(self, done: Future[Loaded], outcome: Loaded | CacheFault) -> None:
        with self._lock:
            self._active -= 1
            if not self._active:
                self.is_quiet.set()
        if isinstance(outcome, CacheFault):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

    def _judge(self, file_id: str, e: Exception) -> CacheFault:
        """The fault to report; a file that will not get better is reported as damaged."""
        passing = isinstance(e, OSError) and e.errno not in (errno.ENOENT, errno.EIO, errno.ELOOP)
        if not passing:
            self._on_damage(file_id)
        return e if isinstance(e, CacheFault) else CacheFault(f"reading: {e}")

    def read(self, file_id: str) -> Loaded:
        """As `load`, on the caller's thread and not part of the rate. CacheFault or OSError."""
        fd, found = self._open(file_id)
        try:
            made = [bytearray(a.nbytes) for a in found.arrays]
            for batch in _batches(found, blob.flat(found.arrays, made)):
                self._fill(fd, batch)
        finally:
            self._close(fd)
        return found, made

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
