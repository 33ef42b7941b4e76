"""The file `history.db` on disk: opening it, and putting it back where somebody removed it.

SQLite goes on writing to a file that has lost its name, without an error. So the writer compares
the names with what it opened, and where they are gone, it writes everything that it still sees to a
new file.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final, TypeAlias

from everwarm.errors import ConfigError
from everwarm.history.schema import check_version, migrate

Identity: TypeAlias = "tuple[tuple[int, int] | None, ...]"
"""Device and inode of the file and of its write-ahead log; None: there is none of that name."""
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def connect(path: Path) -> sqlite3.Connection:
    """Connect to the file, for one thread at a time."""
    db = sqlite3.connect(path, timeout=10, check_same_thread=False)
    for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        db.execute(f"PRAGMA {setting}")
    return db


def open_file(path: Path) -> sqlite3.Connection:
    """Create the file where there is none, bring it up to date, and connect to it.

    Raises ConfigError where it cannot be used; the file is then unchanged.
    """
    writes = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        _look_at(path)
        writes = connect(path)
        migrate(writes, path)
    except (OSError, sqlite3.Error, ConfigError) as e:
        if writes is not None:
            writes.close()
        if isinstance(e, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be used: {e}.{way_out(e, path)}") from e
    return writes


def _look_at(path: Path) -> None:
    """Fail where the file is damaged or too new, without writing a byte of it."""
    reads = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    try:
        check_version(reads, path)
        reads.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        reads.close()


def way_out(error: Exception, path: Path) -> str:
    """Advice for a damaged file; empty for other errors."""
    code = getattr(error, "sqlite_errorcode", 0) or 0
    if code & 0xFF not in _DAMAGED:
        return ""
    return (
        f" It is left as it is. Move it away (with {path.name}-wal, if there is one) to begin with"
        f" an empty history; `sqlite3 {path} .recover` writes out what can be saved."
    )


def identity(path: Path) -> Identity:
    """What is at the names of the file and its log now."""
    return tuple(_number(p) for p in (path, _beside(path, "-wal")))


def stands(path: Path, opened: Identity) -> bool:
    """Whether the opened files still have their names. A log may have been created since."""
    return all(was in (None, now) for was, now in zip(opened, identity(path), strict=True))


def put_back(writes: sqlite3.Connection, path: Path) -> None:
    """Write everything that this connection sees to a new file of this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    target = sqlite3.connect(fresh)
    try:
        writes.backup(target)
    finally:
        target.close()
    remove_log(path)
    os.replace(fresh, path)


def remove_log(path: Path) -> None:
    """Remove the log of a file that is gone: SQLite would apply it to the next one."""
    for end in ("-wal", "-shm"):
        _beside(path, end).unlink(missing_ok=True)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _number(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
