"""Turns of conversations that clients keep: the new messages are written to a session.

The branch `main` is the conversation; a client's side requests (titles, topics) go to the branch
`side` of the same session. Everything runs in the caller's transaction, on the writer thread.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from everwarm.chat import path_table
from everwarm.chat import session_table as table
from everwarm.chat.session import MAIN, Entry, Session, ids_of, new_session_id, title_of
from everwarm.messages import Message, MessageId, tidied
from everwarm.tokens import Tokens

SIDE: Final = "side"
_TAGGED = re.compile(r"\s*<([a-z-]+)>.*?</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTurn:
    """One answered request. `name`: the name by which the conversation is found again."""

    caller: str
    name: str
    client: str | None
    messages: tuple[Message, ...]
    reply: Message
    record: Mapping[str, Any]
    thread: MessageId | None
    reply_id: MessageId | None
    tokens: Tokens[int]


def write(db: sqlite3.Connection, turn: ApiTurn) -> None:
    """Add the new messages, and move their branch."""
    now = table.now()
    system, path = _split(tidied(turn.messages))
    session = table.named(db, turn.caller, turn.name) or _new(turn, now)
    ids = ids_of(session.id, [*path, turn.reply])
    if not path:
        return
    choices = replace(session.choices, system=system)
    session = replace(session, choices=choices, updated=now, client=turn.client)
    table.put(db, session, turn.caller)
    n = table.number(db, session.id)
    first = _first_new(db, n, ids[:-1])
    parents = [None, *ids]
    new = [Entry(ids[i], parents[i], path[i], now) for i in range(first, len(path))]
    table.add_turn(db, session.id, turn.record, turn.thread, turn.reply_id)
    head = ids[-2]
    if turn.reply.parts:
        head = ids[-1]
        finish = turn.record["finish"]
        new.append(Entry(head, ids[-2], turn.reply, now, turn.record, finish))
    table.add(db, session.id, new)
    path_table.add(db, session.id, turn.caller, turn.tokens)
    table.put(db, _moved(db, n, session, [*ids[:-1], head], path))


def _new(turn: ApiTurn, now: float) -> Session:
    return Session(
        id=new_session_id(), title="", created=now, updated=now, origin="api",
        client=turn.client, name=turn.name,
    )  # fmt: skip


def _split(messages: tuple[Message, ...]) -> tuple[str | None, tuple[Message, ...]]:
    """The system prompt, which may change within a conversation, and the other messages."""
    n = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages))
    return "\n\n".join(m.text for m in messages[:n]) or None, messages[n:]


def _first_new(db: sqlite3.Connection, n: int, ids: list[MessageId]) -> int:
    """The index of the first message that is not stored yet, mostly near the end."""
    for i in range(len(ids) - 1, -1, -1):
        where = "WHERE session = ? AND id = ?"
        if db.execute(f"SELECT 1 FROM messages {where}", (n, ids[i])).fetchone():
            return i + 1
    return 0


def _moved(
    db: sqlite3.Connection,
    n: int,
    session: Session,
    ids: list[MessageId],
    path: tuple[Message, ...],
) -> Session:
    old = session.branches.get(MAIN)
    root, depth = _root(db, n, old) if old else (None, 0)
    if old not in ids and root != ids[0] and len(path) + 1 < depth:
        return replace(session, branches={**session.branches, SIDE: ids[-1]})
    title = session.title
    if root != ids[0]:
        first = next((m.text for m in path if m.role == "user"), "")
        title = title_of(_without_tags(first))
    return replace(session, title=title, branches={**session.branches, MAIN: ids[-1]})


def _root(db: sqlite3.Connection, n: int, head: MessageId) -> tuple[str, int]:
    """The first message of a path, and how many messages it has."""
    found = db.execute(
        """WITH RECURSIVE up (id, parent, depth) AS (
            SELECT id, parent, 1 FROM messages WHERE session = ? AND id = ?
            UNION ALL SELECT m.id, m.parent, depth + 1 FROM up
            JOIN messages m ON m.session = ? AND m.id = up.parent
        ) SELECT id, depth FROM up ORDER BY depth DESC LIMIT 1""",
        (n, head, n),
    ).fetchone()
    return (found[0], found[1]) if found else ("", 0)


def _without_tags(text: str) -> str:
    """A first message without what some clients put in front of it, in tags."""
    while (found := _TAGGED.match(text)) is not None:
        text = text[found.end() :]
    return text.strip()
