"""Which pieces are on disk: a small SQLite file beside them. A row is the commit of a piece.

It can be lost at any time: `start.py` makes it again from the files. So it is written with
synchronous=NORMAL (a power loss may take the last rows, and the files bring them back), and an
index with a fault is thrown away. Live; I/O thread only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from everwarm.cache.disk.blob import PieceRecord
from everwarm.cache.disk.files import Files
from everwarm.cache.identity import PositionId
from everwarm.tokens import tokens_of

VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE pieces (
  file_id TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, namespace TEXT NOT NULL,
  kind TEXT NOT NULL, parent TEXT NOT NULL, position TEXT NOT NULL, start INTEGER NOT NULL,
  "end" INTEGER NOT NULL, tokens BLOB NOT NULL, mark TEXT, nbytes INTEGER NOT NULL,
  used INTEGER NOT NULL, is_pinned INTEGER NOT NULL, within TEXT
) STRICT;
CREATE TABLE written (day INTEGER PRIMARY KEY, nbytes INTEGER) STRICT
"""
_MOST_USES: Final = 2**53
_ALL: Final = (
    'SELECT file_id, fingerprint, namespace, kind, parent, position, start, "end", tokens, mark,'
    " nbytes, used, is_pinned, within FROM pieces"
)
_FROM_1: Final = "ALTER TABLE pieces ADD COLUMN within TEXT"


@dataclass(frozen=True, slots=True)
class Stored:
    """A piece on disk. `nbytes`: the file's length. `used`: a count of uses, not a time.

    `above`: the piece that it stands on, where that is known. `within`: where this piece begins
    inside another, the position at which that one ends. It is a hint, which saves a search.
    """

    file_id: str
    record: PieceRecord
    nbytes: int
    used: int = 0
    is_pinned: bool = False
    above: str | None = None
    within: PositionId | None = None


class Index:
    """The rows. Every method is one transaction."""

    def __init__(self, files: Files, path: Path) -> None:
        """sqlite3.DatabaseError: damaged, or another version's."""
        self._db = files.connect(path)
        try:
            self._prepare()
        except sqlite3.Error:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.execute("PRAGMA journal_size_limit=4194304")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={VERSION}")
        elif version == 1:
            with self._transaction():
                self._db.execute(_FROM_1)
                self._db.execute(f"PRAGMA user_version={VERSION}")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"index version {version}")
        if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("the index is damaged")
        self._db.execute(f"{_ALL} LIMIT 0")
        self.written_on(0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.rollback()
            raise

    def all(self) -> list[Stored]:
        """Every row that can be read; one that cannot is left out."""
        return [s for row in self._db.execute(_ALL) if (s := _stored(row))]

    def add(self, stored: Iterable[Stored], *, day: int = 0, written: int = 0) -> None:
        """Commit pieces, and count what was written on that day."""
        with self._transaction():
            for s in stored:
                r = s.record
                self._db.execute(
                    f"INSERT OR REPLACE INTO pieces VALUES ({','.join('?' * 14)})",
                    (s.file_id, r.fingerprint, r.namespace, r.kind, r.parent, r.position, r.start,
                     r.end, r.tokens.tobytes(), r.mark, s.nbytes, s.used, s.is_pinned, s.within),
                )  # fmt: skip
            if written:
                self._db.execute(
                    "INSERT INTO written VALUES (?, ?)"
                    " ON CONFLICT DO UPDATE SET nbytes = nbytes + excluded.nbytes",
                    (day, written),
                )
                self._db.execute("DELETE FROM written WHERE day <> ?", (day,))

    def delete(self, file_ids: Iterable[str]) -> None:
        with self._transaction():
            for file_id in file_ids:
                self._db.execute("DELETE FROM pieces WHERE file_id = ?", (file_id,))

    def touch(self, file_ids: Iterable[str], used: int) -> None:
        with self._transaction():
            for file_id in file_ids:
                self._db.execute("UPDATE pieces SET used=? WHERE file_id=?", (used, file_id))

    def pin(self, file_ids: Iterable[str], is_pinned: bool) -> None:
        with self._transaction():
            for file_id in file_ids:
                self._db.execute(
                    "UPDATE pieces SET is_pinned=? WHERE file_id=?", (is_pinned, file_id)
                )

    def written_on(self, day: int) -> int:
        """Bytes written on a day."""
        row = self._db.execute("SELECT nbytes FROM written WHERE day = ?", (day,)).fetchone()
        return int(row[0]) if row else 0

    def scrub(self) -> None:
        """Take deleted rows out of the write-ahead log too."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._db.close()


def _stored(row: tuple[Any, ...]) -> Stored | None:
    """A row as a value; None where it cannot be one. Whether it tells the truth, its use shows."""
    file_id, fingerprint, namespace, kind, parent, position, start, end, tokens, mark, *rest = row
    nbytes, used, is_pinned, within = rest
    ids = tokens_of()
    try:
        ids.frombytes(tokens)
    except (TypeError, ValueError):
        return None
    if len(ids) != end - start or kind not in ("segment", "checkpoint"):
        return None
    parent, position = PositionId(parent), PositionId(position)
    used = used if 0 <= used < _MOST_USES else 0  # a damaged count must not become the clock
    record = PieceRecord(kind, fingerprint, namespace, parent, position, start, end, ids, mark)
    hint = PositionId(within) if within is not None else None
    return Stored(file_id, record, nbytes, used, bool(is_pinned), within=hint)
