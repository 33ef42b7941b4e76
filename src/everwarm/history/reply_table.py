"""The tables `replies` and `reminders`: a model's replies, token by token, across restarts.

A reminder is what a client took off the end of a message that stays as it was read.

The table is bounded by bytes of tokens: conversations that were not continued for the longest time
are dropped first, whole. Implements `replies.ReplyStore`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from everwarm.errors import EngineError
from everwarm.history.database import Database
from everwarm.messages import MessageId
from everwarm.replies import Kept, Reminder, Reply
from everwarm.tokens import Mark, Tokens

LIMIT_BYTES = 256 * 2**20
_COLUMNS = """caller, thread, reply, place, base, tokens, said, marks, content, before, position,
    text, calls, args, reasoning, began, (SELECT json FROM tools WHERE id = replies.tools)"""
_WRITE = """INSERT INTO replies (model, caller, thread, reply, place, base, tokens, said, marks,
    content, before, position, text, calls, args, reasoning, began, kept, tools)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (model, reply) DO UPDATE SET base = excluded.base, tokens = excluded.tokens,
    said = excluded.said, marks = excluded.marks, kept = excluded.kept"""


class ReplyTable:
    """Replies of one model. `load` is for one thread; `keep` returns at once."""

    def __init__(self, db: Database, model: str, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._db, self._model, self._limit = db, model, limit_bytes
        self._reader = db.reader()
        self._nbytes: float | None = None  # of all tokens in the table; the writer's

    def load(self, thread: MessageId) -> list[Kept]:
        """A conversation's replies in the order in which they were kept; none if unreadable."""
        where = "model = ? AND thread = ? ORDER BY n"
        return self._rows(where, (self._model, thread))

    def called(self, namespace: str, calls: Sequence[str]) -> list[Kept]:
        """A caller's replies that made these calls, of any conversation."""
        out: list[Kept] = []
        for some in (calls[i : i + 500] for i in range(0, len(calls), 500)):
            marks = ",".join("?" * len(some))
            where = f"model = ? AND caller = ? AND calls != '' AND calls IN ({marks})"
            out += self._rows(where, (self._model, namespace, *some))
        return out

    def others(self, thread: MessageId) -> int:
        """How many replies of this conversation other models gave."""
        return len(self._rows("model != ? AND thread = ?", (self._model, thread)))

    def _rows(self, where: str, values: Sequence[str]) -> list[Kept]:
        """An unreadable reply fails no request: it is only rendered anew."""
        sql = f"SELECT {_COLUMNS} FROM replies WHERE {where}"
        try:
            return self._reader.ask(lambda db: [_kept(row) for row in db.execute(sql, values)])
        except EngineError:
            return []

    def keep(self, kept: Kept) -> None:
        """Keep a reply; one with the same history is replaced."""
        self._db.submit(lambda db: self._write(db, kept))

    def reminders(self, found_by: MessageId) -> list[Reminder]:
        """A conversation's messages with reminders, in the order in which they were kept."""
        sql = """SELECT thread, bare, text FROM reminders
            WHERE model = ? AND found_by = ? ORDER BY n"""
        values = (self._model, found_by)
        try:
            rows = self._reader.ask(lambda db: db.execute(sql, values).fetchall())
        except EngineError:
            return []
        return [
            Reminder(
                thread=MessageId(thread),
                found_by=found_by,
                bare=MessageId(bare),
                text=text.decode("utf-8", "surrogatepass"),
            )
            for thread, bare, text in rows
        ]

    def remind(self, reminder: Reminder) -> None:
        """Keep a message with reminders, unless it is there."""
        r, text = reminder, reminder.text.encode("utf-8", "surrogatepass")
        values = (self._model, r.thread, r.found_by, r.bare, text)

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                """INSERT OR IGNORE INTO reminders (model, thread, found_by, bare, text)
                    VALUES (?, ?, ?, ?, ?)""",
                values,
            )

        self._db.submit(write)

    def _write(self, db: sqlite3.Connection, kept: Kept) -> None:
        tools = _tools_id(kept.tools)
        if tools:
            db.execute("INSERT OR IGNORE INTO tools VALUES (?, ?)", (tools, kept.tools))
        r = kept.reply
        values = (
            self._model, kept.namespace, kept.thread, kept.id, kept.place, kept.base,
            kept.tokens.tobytes(), len(r.tokens),
            json.dumps([[m.at, m.kind] for m in kept.marks]), r.content, r.before, r.index,
            r.text, r.calls, json.dumps(dict(r.args)), r.reasoning, kept.at, time.time(), tools,
        )  # fmt: skip
        db.execute(_WRITE, values)
        if self._nbytes is None:
            self._nbytes = self._count(db)
        else:
            self._nbytes += 4 * len(kept.tokens)
        if self._nbytes > self._limit:
            self._drop_oldest(db)

    def _count(self, db: sqlite3.Connection) -> float:
        (nbytes,) = db.execute("SELECT total(length(tokens)) FROM replies").fetchone()
        return float(nbytes)

    def _drop_oldest(self, db: sqlite3.Connection) -> None:
        """Drop the conversations that rested longest until the others fit; never the last one."""
        nbytes = self._count(db)
        threads = db.execute(
            "SELECT model, thread, total(length(tokens)) FROM replies GROUP BY model, thread"
            " ORDER BY max(kept), max(n)"
        ).fetchall()
        for model, thread, size in threads[:-1]:
            if nbytes <= self._limit:
                break
            for table in ("replies", "reminders"):
                db.execute(f"DELETE FROM {table} WHERE model = ? AND thread = ?", (model, thread))
            nbytes -= size
        self._nbytes = nbytes


def forget(db: sqlite3.Connection, session_id: str) -> list[MessageId]:
    """Drop the replies of a session's conversations that no other session has; which
    conversations those are. All their reminders are dropped: they are a user's text.

    On the writer thread, in the caller's transaction, while the session still exists.
    """
    (n,) = db.execute("SELECT n FROM sessions WHERE id = ?", (session_id,)).fetchone()
    rows = db.execute("SELECT DISTINCT thread FROM turns WHERE session = ? AND thread != ''", (n,))
    threads = [MessageId(thread) for (thread,) in rows]
    db.executemany(
        """DELETE FROM replies WHERE thread = ? AND reply NOT IN
            (SELECT reply FROM turns WHERE session != ? AND reply IS NOT NULL)""",
        [(thread, n) for thread in threads],
    )
    db.executemany("DELETE FROM reminders WHERE thread = ?", [(thread,) for thread in threads])
    db.executemany(  # a miss of another session may quote a message of this one
        """UPDATE turns SET record = json_set(record, '$.miss.before', '')
            WHERE thread = ? AND session != ? AND json_type(record, '$.miss') = 'object'""",
        [(thread, n) for thread in threads],
    )
    db.execute("DELETE FROM tools WHERE id NOT IN (SELECT tools FROM replies WHERE tools != '')")
    return threads


def _tools_id(tools: str) -> str | None:
    return hashlib.blake2b(tools.encode(), digest_size=16).hexdigest() if tools else None


def _kept(row: tuple[Any, ...]) -> Kept:
    (caller, thread, reply, place, base, tokens, said, marks, *rest) = row
    (content, before, index, text, calls, args, reasoning, began, tools) = rest
    path = Tokens("i")
    path.frombytes(tokens)
    return Kept(
        namespace=caller,
        thread=MessageId(thread),
        id=MessageId(reply),
        place=MessageId(place or reply),  # rows of version 3 have one sample of each place
        base=MessageId(base) if base else None,
        tokens=path,
        marks=tuple(Mark(at, kind) for at, kind in json.loads(marks)),
        reply=Reply(
            tokens=path[len(path) - said :],
            content=content,
            before=before,
            index=index,
            text=text,
            calls=calls,
            args=json.loads(args),
            reasoning=reasoning,
        ),
        at=began,
        tools=tools or "",
    )
