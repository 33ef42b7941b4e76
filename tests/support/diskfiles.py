"""Files for tests of the disk tier: without syncs, failing at the n-th operation, losing power."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from everwarm.cache.disk.files import OsFiles

CODES = {errno.ENOSPC: 13, errno.EROFS: 8, errno.EIO: 10, errno.EDQUOT: 13}


class QuickFiles(OsFiles):
    """Real files that are not synced: for tests that are not about power."""

    free = 1 << 50

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        os.close(os.open(directory, os.O_RDONLY))  # still an error where there is none

    def room(self, directory: Path) -> tuple[int, int]:
        return self.free, 1 << 50


class Killed(BaseException):
    """The process is dead: nothing that it would still have done happens."""


class FailingFiles(QuickFiles):
    """Counts operations, those of the index too, and has the n-th fail.

    `fail_at`: the operation that fails; `lasting`: all later ones fail as well. An error number, or
    `Killed`, after which only `bury` may touch anything.
    """

    def __init__(self, fail_at: int = 0, error: int | type[Killed] = errno.EIO) -> None:
        self.count = 0
        self.fail_at = fail_at
        self.error = error
        self.lasting = error is Killed
        self.open_fds: set[int] = set()
        self.connections: list[sqlite3.Connection] = []
        self.log: list[str] = []

    def step(self, name: str, from_sqlite: bool = False) -> None:
        self.count += 1
        self.log.append(name)
        if self.fail_at and (
            self.count == self.fail_at or (self.lasting and self.count > self.fail_at)
        ):
            if isinstance(self.error, type):
                raise self.error
            if from_sqlite:
                e = sqlite3.OperationalError("disk I/O error or full")
                e.sqlite_errorcode = CODES[self.error]
                raise e
            raise OSError(self.error, os.strerror(self.error))

    def bury(self) -> None:
        """What the operating system does when a process is gone: close everything."""
        for fd in self.open_fds:
            os.close(fd)
        for c in self.connections:
            sqlite3.Connection.close(c)

    def _opened(self, fd: int) -> int:
        self.open_fds.add(fd)
        return fd

    def make_directory(self, path: Path) -> None:
        self.step("make_directory")
        super().make_directory(path)

    def lock(self, path: Path) -> int:
        self.step("lock")
        return self._opened(super().lock(path))

    def listing(self, directory: Path) -> dict[str, int]:
        self.step("listing")
        return super().listing(directory)

    def create(self, path: Path) -> int:
        self.step("create")
        return self._opened(super().create(path))

    def write(self, fd: int, views: Sequence[memoryview]) -> None:
        half = [v[: len(v) // 2] for v in views]
        try:
            self.step("write")
        except BaseException:
            super().write(fd, half)  # a write that fails has often written something
            raise
        super().write(fd, views)

    def sync(self, fd: int) -> None:
        self.step("sync")
        super().sync(fd)

    def close(self, fd: int) -> None:
        self.step("close")
        self.open_fds.discard(fd)
        super().close(fd)

    def rename(self, old: Path, new: Path) -> None:
        self.step("rename")
        super().rename(old, new)

    def sync_directory(self, directory: Path) -> None:
        self.step("sync_directory")
        super().sync_directory(directory)

    def delete(self, path: Path) -> None:
        self.step("delete")
        super().delete(path)

    def open(self, path: Path) -> tuple[int, int]:
        self.step("open")
        fd, length = super().open(path)
        return self._opened(fd), length

    def read(self, fd: int, views: Sequence[memoryview], at: int) -> None:
        self.step("read")
        super().read(fd, views, at)

    def room(self, directory: Path) -> tuple[int, int]:
        self.step("room")
        return super().room(directory)

    def connect(self, path: Path) -> sqlite3.Connection:
        self.step("connect")
        files = self

        class Connection(sqlite3.Connection):
            def execute(self, *args: Any) -> sqlite3.Cursor:
                files.step(f"sql {args[0].split()[0]}", from_sqlite=True)
                return super().execute(*args)

            def close(self) -> None:
                files.step("sql close", from_sqlite=True)
                super().close()

        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        made = sqlite3.connect(
            path, timeout=1, isolation_level=None, check_same_thread=False, factory=Connection
        )
        self.connections.append(made)
        return made


class HangingFiles(QuickFiles):
    """A disk that does not answer one kind of operation, until `answers` is set."""

    def __init__(self) -> None:
        self.hangs_at = ""
        self.answers = threading.Event()
        self.is_asked = threading.Event()

    def _ask(self, name: str) -> None:
        if name == self.hangs_at:
            self.is_asked.set()
            self.answers.wait()

    def create(self, path: Path) -> int:
        self._ask("create")
        return super().create(path)

    def write(self, fd: int, views: Sequence[memoryview]) -> None:
        self._ask("write")
        super().write(fd, views)

    def sync(self, fd: int) -> None:
        self._ask("sync")
        super().sync(fd)

    def open(self, path: Path) -> tuple[int, int]:
        self._ask("open")
        return super().open(path)

    def read(self, fd: int, views: Sequence[memoryview], at: int) -> None:
        self._ask("read")
        super().read(fd, views, at)


class PowerFiles(FailingFiles):
    """A disk that keeps what was synced; the rest it keeps in part, or not at all, in any order.

    Real files. `lose_power` undoes directory operations that no directory sync followed, each or
    not, and spoils bytes that no file sync followed. The index may be any earlier state of it.
    """

    def __init__(self, stash: Path) -> None:
        super().__init__(error=Killed)
        self.stash = stash
        self.paths: dict[int, Path] = {}
        self.unsynced: dict[int, Path] = {}  # inode -> where it is now
        self.pending: list[tuple[str, Path, Path]] = []

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self.paths[fd] = path
        self.unsynced[os.fstat(fd).st_ino] = path
        self.pending.append(("create", path, path))
        return fd

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self.unsynced.pop(os.fstat(fd).st_ino, None)

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.pending.append(("rename", old, new))

    def delete(self, path: Path) -> None:
        kept = self.stash / f"{len(list(self.stash.iterdir()))}"
        if path.exists():
            os.link(path, kept)
        super().delete(path)
        self.pending.append(("delete", path, kept))

    def sync_directory(self, directory: Path) -> None:
        super().sync_directory(directory)
        self.pending = [p for p in self.pending if p[1].parent != directory]

    def lose_power(self, rng: random.Random, root: Path) -> None:
        self.bury()
        for path in {p for d in (root / "pieces", self.stash) for p in d.iterdir()}:
            if path.stat().st_ino in self.unsynced:
                _spoil(path, rng)
        for what, old, new in reversed(self.pending):
            if rng.random() < 0.5:
                continue
            if what == "create":
                old.unlink(missing_ok=True)
            elif what == "rename" and new.exists():
                os.rename(new, old)
            elif what == "delete" and not old.exists():
                shutil.copyfile(new, old)


def _spoil(path: Path, rng: random.Random) -> None:
    """Blocks that were never written: missing at the end, or zero anywhere."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        del data[rng.randrange(len(data) + 1) :]
    for at in range(0, len(data), 512):
        if rng.random() < 0.5:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
    path.write_bytes(data)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now
