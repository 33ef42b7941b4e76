"""Compaction: a conversation is summed up at its end, and goes on from the summary.

m1 ─ m2 ─ m3 ─ m4              <- branch "main" stays, as warm as it is
summary (covers m4) ─ m5       <- branch "compacted"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from everwarm.chat import session_table as table
from everwarm.chat.new_turn import NewTurn
from everwarm.chat.session import Entry, Session, Tree, context_used, free_name, select
from everwarm.chat.session_store import SessionStore
from everwarm.errors import RequestError
from everwarm.history.database import Connection
from everwarm.messages import Message, MessageId, Text
from everwarm.request import Request

SUM_UP: Final = (
    "Sum up our conversation so far, so that it can go on from your summary alone: what was asked, "
    "found and decided, with names and numbers, and what is still open. Write only the summary."
)
SUMMARY_TOKENS: Final = 2048


async def compact(store: SessionStore, session_id: str) -> NewTurn:
    """Begin a turn whose reply is the summary of the present branch."""
    session, tree = await store.get(session_id)
    if session.head is None or tree[session.head].covers:
        raise RequestError("There is nothing to sum up.", code="nothing_to_compact")
    return NewTurn(session, tree, session.head, session, sums_up=True)


def uncompact(session: Session, tree: Tree) -> Session:
    """Go back to the branch that the present one's summary stands for."""
    covered = [e.covers for e in tree.path(session.head) if e.covers]
    if not covered:
        raise RequestError("This branch is not compacted.", code="not_compacted")
    return select(session, tree, covered[0])


def is_due(session: Session, tree: Tree, limit_tokens: float) -> bool:
    """Whether the present branch fills so much of the context. A branch whose summary a person
    undid gets no other one."""
    used = context_used(tree.path(session.head)) or 0
    return used >= limit_tokens and not _is_undone(tree, session.head)


def _is_undone(tree: Tree, head: MessageId | None) -> bool:
    """Whether a summary covers a part of this path, and the path goes on without it."""
    return any(e.covers and tree.is_behind(head, e.covers) for e in tree)


def summary_request(request: Request) -> Request:
    """Ask for a summary at the end of a conversation, which is warm up to there."""
    wish = Message("user", (Text(SUM_UP),))
    max_tokens = min(request.max_tokens or SUMMARY_TOKENS, SUMMARY_TOKENS)
    return replace(request, messages=(*request.messages, wish), max_tokens=max_tokens)


def write_summary(
    db: Connection, turn: NewTurn, summary: Message, record: Mapping[str, Any] | None
) -> tuple[Session, Tree]:
    """Add a branch whose first message is the summary."""
    session, tree = table.get(db, turn.session.id), table.tree(db, turn.session.id)
    if summary.parts and record and record["finish"] != "cancelled":
        head, finish = tree.id_of(None, summary), record["finish"]
        entry = Entry(head, None, summary, table.now(), record, finish, turn.at)
        table.add(db, session.id, [entry])
        name = "compacted"
        if name in session.branches:
            name = free_name(session.branches, name)
        session = session.branched(head, name)
    table.put(db, replace(session, updated=table.now()))
    return session, table.tree(db, session.id)
