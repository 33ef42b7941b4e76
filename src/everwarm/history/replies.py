"""The table `replies`: what one model said, word for word, so that a restart finds it again.

Bounded by bytes of tokens: conversations that were not continued for the longest time go first,
whole. Implements `replies.ReplyStore`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time

from everwarm.history.database import Database
from everwarm.messages import MessageId
from everwarm.replies import Kept, Reply
from everwarm.tokens import Mark, Tokens

LIMIT_BYTES = 256 * 2**20
_COLUMNS = """reply, base, tokens, said, marks, content, before, position, text, calls, args, began,
    (SELECT json FROM tools WHERE id = replies.tools)"""


class ReplyTable:
    """Replies of one model. `load` is for one thread; `keep` returns at once."""

    def __init__(self, db: Database, model: str, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._db, self._model, self._limit = db, model, limit_bytes
        self._reads = db.connect()
        self._tools: set[str] = set()
        self._nbytes: float | None = None  # of all tokens in the table; the writer's

    def load(self, thread: MessageId) -> list[Kept]:
        """A conversation's replies in the order in which they were kept."""
        rows = self._reads.execute(
            f"SELECT {_COLUMNS} FROM replies WHERE model = ? AND thread = ? ORDER BY n",
            (self._model, thread),
        )
        return [_kept(thread, row) for row in rows]

    def others(self, thread: MessageId) -> int:
        """How many replies of this conversation other models gave."""
        query = "SELECT count(*) FROM replies WHERE model != ? AND thread = ?"
        (n,) = self._reads.execute(query, (self._model, thread)).fetchone()
        return int(n)

    def keep(self, kept: Kept) -> None:
        """Keep a reply; one with the same history is replaced."""
        self._db.submit(lambda db: self._write(db, kept))

    def _write(self, db: sqlite3.Connection, kept: Kept) -> None:
        tools = _tools_id(kept.tools)
        if tools and tools not in self._tools:
            db.execute("INSERT OR IGNORE INTO tools VALUES (?, ?)", (tools, kept.tools))
            self._tools.add(tools)
        r = kept.reply
        values = (
            self._model, kept.thread, kept.id, kept.base, kept.tokens.tobytes(), len(r.tokens),
            json.dumps([[m.at, m.kind] for m in kept.marks]), r.content, r.before, r.index,
            r.text, r.calls, json.dumps(dict(r.args)), kept.at, time.time(), tools,
        )  # fmt: skip
        db.execute(
            "INSERT INTO replies (model, thread, reply, base, tokens, said, marks, content, before,"
            " position, text, calls, args, began, kept, tools) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
            "?,?) ON CONFLICT (model, reply) DO UPDATE SET base = excluded.base, tokens ="
            " excluded.tokens, said = excluded.said, marks = excluded.marks, kept = excluded.kept",
            values,
        )
        if self._nbytes is None:
            self._nbytes = self._count(db)
        else:
            self._nbytes += 4 * len(kept.tokens)
        if self._nbytes > self._limit:
            self._forget(db)

    def _count(self, db: sqlite3.Connection) -> float:
        (nbytes,) = db.execute("SELECT total(length(tokens)) FROM replies").fetchone()
        return float(nbytes)

    def _forget(self, db: sqlite3.Connection) -> None:
        """Let the conversations go that rested longest, until the rest fits; never the last one."""
        nbytes = self._count(db)
        threads = db.execute(
            "SELECT model, thread, total(length(tokens)) FROM replies GROUP BY model, thread"
            " ORDER BY max(kept), max(n)"
        ).fetchall()
        for model, thread, size in threads[:-1]:
            if nbytes <= self._limit:
                break
            db.execute("DELETE FROM replies WHERE model = ? AND thread = ?", (model, thread))
            nbytes -= size
        self._nbytes = nbytes


def _tools_id(tools: str) -> str | None:
    return hashlib.blake2b(tools.encode(), digest_size=16).hexdigest() if tools else None


def _kept(thread: MessageId, row: tuple[object, ...]) -> Kept:
    (reply, base, tokens, said, marks, content, before, index, text, calls, args, began, tools) = (
        row
    )
    path = Tokens("i")
    path.frombytes(bytes(tokens))  # type: ignore[call-overload]
    return Kept(
        thread=thread,
        id=MessageId(str(reply)),
        base=MessageId(str(base)) if base else None,
        tokens=path,
        marks=tuple(Mark(at, kind) for at, kind in json.loads(str(marks))),
        reply=Reply(
            tokens=path[len(path) - int(str(said)) :],
            content=bytes(content),  # type: ignore[call-overload]
            before=bytes(before),  # type: ignore[call-overload]
            index=int(str(index)),
            text=str(text),
            calls=str(calls),
            args=json.loads(str(args)),
        ),
        at=float(str(began)),
        tools=str(tools or ""),
    )
