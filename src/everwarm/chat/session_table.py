"""The tables `sessions`, `branches`, `messages` and `turns`: conversations that the server holds.

Every function works inside its caller's transaction; whoever changes something runs on the writer
thread, so that what it read still holds when it writes. A deleted message leaves nothing: rows are
overwritten, and the text index is built anew where it held it.
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
    """Write a session's own row and its branches; its messages are not touched."""
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
    """Write messages; one that is there already gets this one's turn, reasoning and finish."""
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
    said = [(2 * row, _indexed(texts.pop(id))) for row, id in rows]
    _insert_words(db, [(row, text) for row, text in said if text])
    for id, text in texts.items():  # those that were there already
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
    """Write what one answered request cost, and which remembered reply it left."""
    n, spelled = number(db, session_id), json.dumps(record)
    values = (record["id"], n, record["at"], spelled, thread or "", reply)
    db.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?, ?, ?)", values)


def number(db: sqlite3.Connection, session_id: str) -> int:
    """The session's row. Raises NotFound."""
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
    """The session that a client calls so."""
    where = "WHERE caller = ? AND name = ? AND name != ''"
    row = db.execute(f"SELECT {_SESSION} FROM sessions {where}", (caller, name)).fetchone()
    return _session(db, row) if row else None


def latest(db: sqlite3.Connection, limit: int, before: float | None) -> tuple[list[Session], bool]:
    """Sessions by their last change; whether there are more. The first page begins with those that
    are pinned; `before` is for the pages behind it."""
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
    """Take messages out, from the text index too."""
    n = number(db, session_id)
    for message in ids:
        where = "WHERE session = ? AND id = ?"
        row, turn = db.execute(f"SELECT n, turn FROM messages {where}", (n, message)).fetchone()
        db.execute("DELETE FROM found WHERE rowid = ?", (2 * row,))
        db.execute(f"DELETE FROM messages {where}", (n, message))
        db.execute("UPDATE turns SET record = '{}' WHERE id = ?", (turn,))
    forget_words(db)


def remove(db: sqlite3.Connection, session_id: str) -> int:
    """Take a session out with all that is its own; how many bytes of content that was."""
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
    forget_words(db)
    return int(nbytes)


def forget_words(db: sqlite3.Connection) -> None:
    """Take the words of deleted rows out of the text index.

    FTS5 only notes that a row is gone; a merge of all its parts drops what is. (SQLite 3.42 has the
    option `secure-delete`; once that is the oldest one here, this can go.)
    """
    db.execute("INSERT INTO found (found) VALUES ('optimize')")


def search(db: sqlite3.Connection, text: str, limit: int) -> list[tuple[Session, str]]:
    """Sessions with all these words in a message or the title, and where they stand.

    A character NUL parts words as a blank does: for SQLite it would end the whole query.
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
    known = db.execute("SELECT text FROM found WHERE rowid = ?", (row,)).fetchone()
    said = _indexed(text)
    if known is None and said:
        _insert_words(db, [(row, said)])
    elif known is not None and known[0] != said:
        db.execute("UPDATE found SET text = ? WHERE rowid = ?", (said, row))


def _indexed(text: str) -> str:
    """A text as the index can hold it."""
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
    """Many JSON texts as one: a call for each costs most of the time of a long session."""
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
    """The present time in unix seconds, to the millisecond: it comes back exactly."""
    return round(time.time(), 3)
