"""The few operations on files that the disk tier makes. `OsFiles` is the real one.

A protocol, so that tests can fail the n-th operation, drop what was not synced, or fill the disk.
Nothing here follows a symbolic link in its last step. OSError and sqlite3.Error pass through.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from everwarm.cache.disk.blob import CHUNK, chunks
from everwarm.errors import CacheFault

MAX_VIEWS: Final = 256
"""Buffers in one call; systems allow 1,024."""
SLAB: Final = 2**20
"""Bytes of one write. A multiple of every disk's block."""
_SAFE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class Files(Protocol):
    """Descriptors are plain numbers, to be given back to `close`."""

    def make_directory(self, path: Path) -> None:
        """A directory of the user's own, 0700, made with its parents if it is missing.

        What a symbolic link leads to is somebody's choice, and keeps its mode."""

    def lock(self, path: Path) -> int:
        """Hold an exclusive lock until `close`. BlockingIOError: somebody else does."""

    def listing(self, directory: Path) -> dict[str, int]:
        """Names and lengths of the plain files in a directory."""

    def create(self, path: Path) -> int:
        """A new file to be written, 0600. It must not exist."""

    def pass_cache(self, fd: int) -> None:
        """Have what is appended from now on go past the system's page cache, where it can."""

    def write(self, fd: int, views: Sequence[memoryview]) -> None:
        """Append all of these."""

    def sync(self, fd: int) -> None:
        """Return when the bytes are on the medium."""

    def close(self, fd: int) -> None: ...
    def rename(self, old: Path, new: Path) -> None: ...
    def sync_directory(self, directory: Path) -> None: ...
    def delete(self, path: Path) -> None: ...

    def open(self, path: Path) -> tuple[int, int]:
        """An existing plain file to be read, and its length."""

    def read(self, fd: int, views: Sequence[memoryview], at: int) -> None:
        """Fill all of these from position `at`. CacheFault: the file ends before."""

    def room(self, directory: Path) -> tuple[int, int]:
        """(free to us, total) bytes of the file system."""

    def connect(self, path: Path) -> sqlite3.Connection:
        """The database at this path, 0600, in autocommit mode. Used by one thread at a time."""


class OsFiles:
    """The operating system's files."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != 0o700:
            path.chmod(0o700)

    def lock(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            os.close(fd)
            raise
        return fd

    def listing(self, directory: Path) -> dict[str, int]:
        with os.scandir(directory) as found:
            return {
                e.name: e.stat(follow_symlinks=False).st_size
                for e in found
                if e.is_file(follow_symlinks=False)
            }

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)

    def pass_cache(self, fd: int) -> None:
        with suppress(OSError):  # not on this file system
            if (no_cache := getattr(fcntl, "F_NOCACHE", None)) is not None:  # macOS
                fcntl.fcntl(fd, no_cache, 1)
            else:
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | _DIRECT)

    def write(self, fd: int, views: Sequence[memoryview]) -> None:
        left = list(views)
        while left:
            try:
                left = _rest(left, os.writev(fd, left))
            except OSError as e:
                if e.errno != errno.EINVAL or not _takes_cache_again(fd):
                    raise

    def sync(self, fd: int) -> None:
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is not None:  # macOS: fsync alone leaves the bytes in the drive's own cache
            try:
                fcntl.fcntl(fd, full)
                return
            except OSError as e:
                if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                    raise
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def sync_directory(self, directory: Path) -> None:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def delete(self, path: Path) -> None:
        os.unlink(path)

    def open(self, path: Path) -> tuple[int, int]:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _SAFE)  # a pipe must not hang us
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise CacheFault("not a plain file")
        return fd, found.st_size

    def read(self, fd: int, views: Sequence[memoryview], at: int) -> None:
        left = [v for v in views if len(v)]
        while left:
            n = os.preadv(fd, left, at)
            if n == 0:
                raise CacheFault("the file ends too early")
            left, at = _rest(left, n), at + n

    def room(self, directory: Path) -> tuple[int, int]:
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def connect(self, path: Path) -> sqlite3.Connection:
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if name.is_symlink():
                os.unlink(name)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o600))
        return sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)


def _takes_cache_again(fd: int) -> bool:
    """End writing past the page cache, which takes whole blocks only; whether that was on."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if not flags & _DIRECT:
        return False
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~_DIRECT)
    return True


def _rest(views: list[memoryview], n: int) -> list[memoryview]:
    """What is left of these after their first n bytes."""
    for i, v in enumerate(views):
        if n < len(v):
            return [v[n:], *views[i + 1 :]]
        n -= len(v)
    return []


def batches(views: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    """All bytes in order, in groups for one call each: about a chunk, cut at chunks only."""
    group: list[memoryview] = []
    size = 0
    for view in views:
        for c in chunks(view):
            if group and (size + len(c) > CHUNK or len(group) == MAX_VIEWS):
                yield group
                group, size = [], 0
            group.append(c)
            size += len(c)
    if group:
        yield group


def slabs(views: Iterable[memoryview], room: memoryview) -> Iterator[memoryview]:
    """All bytes in order, copied into `room`: full each time but the last. Good until the next."""
    n = 0
    for view in views:
        while len(view):
            part = view[: len(room) - n]
            room[n : n + len(part)] = part
            n, view = n + len(part), view[len(part) :]
            if n == len(room):
                yield room
                n = 0
    if n:
        yield room[:n]
