"""The tables `sessions`, `branches`, `messages` and `turns` of `history.db`.

Every function works inside its caller's transaction. Changes run on the writer thread, so that what
they read is still true when they write. A deleted message leaves nothing behind: its rows are
overwritten, and the text index is merged.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from everwarm.chat.session import Choices, Entry, Session, Tree
from everwarm.errors import NotFound
from everwarm.messages import Message, MessageId, Part, Reasoning, Text, ToolCall

_SESSION: Final = (
    """n, id, title, created, updated, pinned, origin, client, name, choices, branch"""
)
_KINDS: Final[dict[str, Any]] = {"text": Text, "reasoning": Reasoning, "call": ToolCall}
_ENTRY: Final = """SELECT m.n, m.id, m.parent, m.role, m.parts, m.call, m.created, m.finish,
    m.covers, t.record FROM messages m LEFT JOIN turns t ON t.id = m.turn"""


def put(db: sqlite3.Connection, session: Session, caller: str = "") -> None:
    """Write a session's row and its branches, not its messages."""
    s = session
    values = (s.title, s.updated, s.pinned, s.client, json.dumps(asdict(s.choices)), s.branch, s.id)
    changed = db.execute(
        """UPDATE sessions SET title = ?, updated = ?, pinned = ?, client = ?, choices = ?,
        branch = ? WHERE id = ?""",
        values,
    )
    if not changed.rowcount:
        db.execute(
            """INSERT INTO sessions (title, updated, pinned, client, choices, branch, id, created,
            origin, caller, name) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (*values, s.created, s.origin, caller, s.name),
        )
    n = number(db, s.id)
    _index(db, 2 * n + 1, s.title)
    db.execute(
        f"DELETE FROM branches WHERE session = ? AND name NOT IN ({_marks(s.branches)})",
        (n, *s.branches),
    )
    db.executemany(
        """INSERT INTO branches (session, name, head) VALUES (?, ?, ?)
        ON CONFLICT (session, name) DO UPDATE SET head = excluded.head""",
        [(n, name, head) for name, head in s.branches.items()],
    )


def add(db: sqlite3.Connection, session_id: str, entries: Iterable[Entry]) -> None:
    """Write messages; one that exists gets the new one's turn, reasoning and finish."""
    n = number(db, session_id)
    entries = list(entries)
    (before,) = db.execute("SELECT max(n) FROM messages").fetchone()
    db.executemany(
        """INSERT INTO messages (session, id, parent, role, parts, call, created, turn, finish,
        covers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session, id) DO UPDATE SET
        parts = excluded.parts, turn = excluded.turn, finish = excluded.finish,
        created = excluded.created WHERE excluded.turn IS NOT NULL""",
        [_row(n, e) for e in entries],
    )
    texts = {e.id: e.message.text for e in entries}
    new = "SELECT n, id FROM messages WHERE n > ? AND session = ?"
    rows = db.execute(new, (before or 0, n)).fetchall()
    words = [(2 * row, _indexable(texts.pop(id))) for row, id in rows]
    _insert_words(db, [(row, text) for row, text in words if text])
    for id, text in texts.items():  # messages that existed
        row = db.execute("SELECT n FROM messages WHERE session = ? AND id = ?", (n, id)).fetchone()
        _index(db, 2 * row[0], text)


def _row(session: int, e: Entry) -> tuple[object, ...]:
    m, turn = e.message, e.turn["id"] if e.turn else None
    own = (e.id, e.parent, m.role, _spell(m.parts), m.tool_call_id)
    return (session, *own, e.created, turn, e.finish, e.covers)


def add_turn(
    db: sqlite3.Connection,
    session_id: str,
    record: Mapping[str, Any],
    thread: MessageId | None,
    reply: MessageId | None,
) -> None:
    """Write the record of a turn, and the id of the reply that it left in `replies`."""
    n, text = number(db, session_id), json.dumps(record)
    values = (record["id"], n, record["at"], text, thread or "", reply)
    db.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?, ?, ?)", values)


def number(db: sqlite3.Connection, session_id: str) -> int:
    """The number of the session's row. Raises NotFound."""
    found = db.execute("SELECT n FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if found is None:
        raise NotFound("There is no such session.", param="session", code="session_not_found")
    return int(found[0])


def get(db: sqlite3.Connection, session_id: str) -> Session:
    """One session. Raises NotFound."""
    n = number(db, session_id)
    row = db.execute(f"SELECT {_SESSION} FROM sessions WHERE n = ?", (n,)).fetchone()
    return _session(db, row)


def named(db: sqlite3.Connection, caller: str, name: str) -> Session | None:
    """The session with a client's own name for it."""
    where = "WHERE caller = ? AND name = ? AND name != ''"
    row = db.execute(f"SELECT {_SESSION} FROM sessions {where}", (caller, name)).fetchone()
    return _session(db, row) if row else None


def latest(db: sqlite3.Connection, limit: int, before: float | None) -> tuple[list[Session], bool]:
    """A page of sessions by their last change, and whether there are more. The first page begins
    with pinned ones; `before` is for the pages that follow."""
    where, values = "WHERE updated < ? AND NOT pinned", [before]
    if before is None:
        where, values = "", []
    rows = db.execute(
        f"SELECT {_SESSION} FROM sessions {where} ORDER BY pinned DESC, updated DESC LIMIT ?",
        (*values, limit + 1),
    ).fetchall()
    return [_session(db, row) for row in rows[:limit]], len(rows) > limit


def tree(db: sqlite3.Connection, session_id: str) -> Tree:
    """All messages of a session. Raises NotFound."""
    n = number(db, session_id)
    rows = db.execute(f"{_ENTRY} WHERE m.session = ? ORDER BY m.n", (n,)).fetchall()
    parts = _read_all(parts for _, _, _, _, parts, *_ in rows)
    records = _read_all(record or "null" for *_, record in rows)
    return Tree(session_id, map(_entry, rows, parts, records))


def turns_of(db: sqlite3.Connection, session_id: str) -> list[str]:
    """The ids of all turns of a session."""
    n = number(db, session_id)
    return [id for (id,) in db.execute("SELECT id FROM turns WHERE session = ?", (n,))]


def remove_messages(db: sqlite3.Connection, session_id: str, ids: Iterable[MessageId]) -> None:
    """Remove messages, also from the text index."""
    n = number(db, session_id)
    for message in ids:
        where = "WHERE session = ? AND id = ?"
        row, turn = db.execute(f"SELECT n, turn FROM messages {where}", (n, message)).fetchone()
        db.execute("DELETE FROM found WHERE rowid = ?", (2 * row,))
        db.execute(f"DELETE FROM messages {where}", (n, message))
        db.execute("UPDATE turns SET record = '{}' WHERE id = ?", (turn,))
    drop_words(db)


def remove(db: sqlite3.Connection, session_id: str) -> int:
    """Remove a session with everything that belongs to it; the bytes of its messages."""
    n = number(db, session_id)
    (nbytes,) = db.execute(
        "SELECT total(length(parts)) FROM messages WHERE session = ?", (n,)
    ).fetchone()
    db.execute(
        "DELETE FROM found WHERE rowid IN (SELECT 2 * n FROM messages WHERE session = ?)", (n,)
    )
    db.execute("DELETE FROM found WHERE rowid = ?", (2 * n + 1,))
    for table in ("messages", "branches", "turns", "paths"):
        db.execute(f"DELETE FROM {table} WHERE session = ?", (n,))
    db.execute("DELETE FROM sessions WHERE n = ?", (n,))
    drop_words(db)
    return int(nbytes)


def drop_words(db: sqlite3.Connection) -> None:
    """Drop the words of deleted rows from the text index.

    FTS5 only marks a row as deleted; merging all its parts drops the words. (SQLite 3.42 has the
    option `secure-delete`; this can go once no older version is supported.)
    """
    db.execute("INSERT INTO found (found) VALUES ('optimize')")


def search(db: sqlite3.Connection, text: str, limit: int) -> list[tuple[Session, str]]:
    """Sessions with all these words in one message or in the title, each with a snippet.

    NUL separates words as a blank does: SQLite would end the query there.
    """
    words = [w.replace('"', '""') for w in text.replace("\0", " ").split()]
    if not words:
        return []
    query = " AND ".join(f'"{w}"*' for w in words)
    rows = db.execute(
        """SELECT CASE WHEN f.rowid % 2 THEN (f.rowid - 1) / 2
            ELSE (SELECT session FROM messages WHERE n = f.rowid / 2) END,
            snippet(found, 0, '', '', '…', 16)
        FROM found f WHERE found MATCH ? ORDER BY rank LIMIT 1000""",
        (query,),
    )
    first: dict[int, str] = {}
    for n, snippet in rows:
        first.setdefault(n, snippet)
    out = []
    for n, snippet in list(first.items())[:limit]:
        row = db.execute(f"SELECT {_SESSION} FROM sessions WHERE n = ?", (n,)).fetchone()
        out.append((_session(db, row), snippet))
    return out


def _index(db: sqlite3.Connection, row: int, text: str) -> None:
    old = db.execute("SELECT text FROM found WHERE rowid = ?", (row,)).fetchone()
    text = _indexable(text)
    if old is None and text:
        _insert_words(db, [(row, text)])
    elif old is not None and old[0] != text:
        db.execute("UPDATE found SET text = ? WHERE rowid = ?", (text, row))


def _indexable(text: str) -> str:
    """The text without half surrogate pairs, which the index cannot store."""
    return text.encode("utf-8", "replace").decode()


def _insert_words(db: sqlite3.Connection, rows: Iterable[tuple[int, str]]) -> None:
    db.executemany("INSERT INTO found (rowid, text) VALUES (?, ?)", rows)


def _session(db: sqlite3.Connection, row: tuple[Any, ...]) -> Session:
    n, id, title, created, updated, pinned, origin, client, name, choices, branch = row
    branches = db.execute("SELECT name, head FROM branches WHERE session = ? ORDER BY n", (n,))
    return Session(
        id=id, title=title, created=created, updated=updated, pinned=bool(pinned), origin=origin,
        client=client, name=name, choices=Choices(**json.loads(choices)), branch=branch,
        branches=dict(branches.fetchall()),
    )  # fmt: skip


def _read_all(spelled: Iterable[str]) -> list[Any]:
    """Parse many JSON texts at once: one call for each would dominate in a long session."""
    return list(json.loads(f"[{','.join(spelled)}]"))


def _entry(row: tuple[Any, ...], parts: Sequence[Sequence[str]], turn: dict[str, Any]) -> Entry:
    n, id, parent, role, _, call, created, finish, covers, _ = row
    message = Message(role, tuple(_KINDS[kind](*rest) for kind, *rest in parts), call)
    return Entry(id, parent, message, created, turn or None, finish, covers, n)


def _spell(parts: Sequence[Part]) -> str:
    return json.dumps([_spell_part(p) for p in parts])


def _spell_part(part: Part) -> list[str]:
    match part:
        case Text(text):
            return ["text", text]
        case Reasoning(text):
            return ["reasoning", text]
        case ToolCall(id, name, arguments):
            return ["call", id, name, arguments]


def _marks(values: Iterable[object]) -> str:
    return ",".join("?" for _ in values)


def now() -> float:
    """The time in unix seconds, rounded to milliseconds, so that JSON keeps it exactly."""
    return round(time.time(), 3)
