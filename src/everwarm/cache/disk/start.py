"""Take up a directory of pieces: lock it, clean it, make index and files agree."""

from __future__ import annotations

import errno
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from everwarm.cache.disk.blob import NewerFormat
from everwarm.cache.disk.files import Files
from everwarm.cache.disk.index import Index, Stored
from everwarm.cache.disk.joinable import doubles
from everwarm.cache.disk.reader import PieceReader
from everwarm.cache.disk.shelf import Shelf
from everwarm.errors import CacheFault, ConfigError

TAG: Final = b"""Signature: 8a477f597d28d172789f06886806bc55
# Conversations kept by everwarm. They can be deleted while it is not running; backups skip them.
"""
_NAME: Final = re.compile(r"([0-9a-f]{32})\.(kv|tmp)")
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


@dataclass(slots=True)
class Start:
    """A directory that was taken up. `other_bytes`: of files that this program cannot judge."""

    lock: int
    index: Index
    shelf: Shelf
    other_bytes: int = 0
    n_damaged: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all files here."""
        return self.shelf.nbytes + self.other_bytes


def take_up(root: Path, files: Files, reader: PieceReader) -> Start:
    """OSError, sqlite3.Error: it cannot be used now. ConfigError: another process has it."""
    files.make_directory(root)
    lock = _lock(root, files)
    index = None
    try:
        directory = root / "pieces"
        if directory.is_symlink():
            raise OSError(errno.ENOTDIR, "pieces is a symbolic link")
        files.make_directory(directory)
        _tag(root / "CACHEDIR.TAG", files)
        index = _open_index(root / "index.db", files)
        return _agree(directory, files, reader, lock, index)
    except (OSError, sqlite3.Error):
        if index is not None:
            index.close()
        files.close(lock)
        raise


def _lock(root: Path, files: Files) -> int:
    try:
        return files.lock(root / "lock")
    except BlockingIOError:
        raise ConfigError(
            f"{root} is in use by {_holder(root)}. Stop it, or keep conversations in memory only."
        ) from None


def _holder(root: Path) -> str:
    try:
        return f"process {int((root / 'lock').read_text())}"
    except (OSError, ValueError):
        return "another process"


def _tag(path: Path, files: Files) -> None:
    try:
        fd = files.create(path)
    except FileExistsError:
        return
    try:
        files.write(fd, [memoryview(TAG)])
    finally:
        files.close(fd)


def _open_index(path: Path, files: Files) -> Index:
    """The index, or a new one in place of one that is damaged or another version's."""
    try:
        return Index(files, path)
    except sqlite3.DatabaseError as e:
        code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code & 0xFF not in _DAMAGED:
            raise
    for name in ("-wal", "-shm", ""):
        try:
            files.delete(Path(f"{path}{name}"))
        except FileNotFoundError:
            continue
    return Index(files, path)


def _agree(directory: Path, files: Files, reader: PieceReader, lock: int, index: Index) -> Start:
    """Make index and files agree."""
    made = Start(lock, index, Shelf())
    found = _clean(directory, files)
    rows = {s.file_id: s for s in index.all()}
    known = {x: s for x, s in rows.items() if found.get(x) == s.nbytes}
    wrong = list(rows.keys() - known.keys())
    bad: list[str] = []
    adopted = [s for x in found.keys() - known.keys() if (s := _adopt(x, reader, made, found, bad))]
    refused = made.shelf.add_all([*known.values(), *adopted])
    bad += refused
    wrong += refused
    made.n_damaged = len(bad)
    for file_id in doubles(made.shelf.rows()):  # a join that was cut short
        made.shelf.drop(file_id)
        bad.append(file_id)
        wrong.append(file_id)
    for file_id in bad:
        files.delete(directory / f"{file_id}.kv")
    if wrong:
        index.delete(wrong)
    here = [made.shelf.get(x) for x in made.shelf.ids()]
    if fresh := [s for s in here if s != known.get(s.file_id)]:
        index.add(fresh)
    return made


def _clean(directory: Path, files: Files) -> dict[str, int]:
    """Delete half-written files; ids and lengths of the others. Foreign files are left alone."""
    out = {}
    for name, nbytes in files.listing(directory).items():
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        if match[2] == "tmp":
            files.delete(directory / name)
        else:
            out[match[1]] = nbytes
    return out


def _adopt(
    file_id: str, reader: PieceReader, made: Start, found: dict[str, int], bad: list[str]
) -> Stored | None:
    """A file that no row knows: a row was lost, or it is none of ours."""
    try:
        blob = reader.head(file_id)
    except (NewerFormat, OSError):
        made.other_bytes += found[file_id]
        return None
    except CacheFault:
        bad.append(file_id)
        return None
    return Stored(file_id, blob.record, blob.nbytes)
