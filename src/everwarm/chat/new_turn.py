"""How a turn of a session begins: which message is to be answered, and on which branch.

Each function here is a `TurnMaker` once its own arguments are bound. All raise RequestError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from everwarm.chat import session_table as table
from everwarm.chat.session import Entry, Session, Tree, entry_of, title_of
from everwarm.chat.session_store import SessionStore
from everwarm.errors import RequestError
from everwarm.messages import Message, MessageId, Text


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn that answers the message `at` on the present branch of `session`.

    `before`: the session to return to if the turn is refused; the message `added` is removed then.
    `sums_up`: the reply is a summary. `continued`: a reply that was cut, to be written on.
    """

    session: Session
    tree: Tree
    at: MessageId
    before: Session
    added: MessageId | None = None
    sums_up: bool = False
    continued: Entry | None = None


CUT: Final = frozenset(("length", "cancelled", "error", "engine_died"))
"""How replies end that can be written on: at a limit, stopped, or where the engine ended."""
TurnMaker = Callable[[SessionStore, str], Awaitable[NewTurn]]
"""Makes the turn of the session with this id."""


async def send(store: SessionStore, session_id: str, *, text: str, parent: str | None) -> NewTurn:
    """Add a message at the end of the present branch; elsewhere, on a branch of its own."""
    before, tree = await store.get(session_id)
    at = before.head if parent is None else entry_of(tree, parent, "parent").id
    return await _add_message(store, before, at, text, is_new_branch=at != before.head)


async def edit(store: SessionStore, session_id: str, *, message: str, text: str) -> NewTurn:
    """Add a user's message in other words beside the old one, on a branch of its own."""
    before, tree = await store.get(session_id)
    old = entry_of(tree, message, "message")
    if old.message.role != "user" or old.covers:
        raise RequestError("message: only a user's message can be edited.", param="message")
    return await _add_message(store, before, old.parent, text, is_new_branch=True)


async def regenerate(store: SessionStore, session_id: str, *, message: str | None) -> NewTurn:
    """Make a reply anew, beside the old one. A message without a reply gets its first."""
    before, tree = await store.get(session_id)
    old = before.head if message is None else entry_of(tree, message, "message").id
    entry = tree[old] if old is not None else None
    if entry is not None and entry.covers:
        raise RequestError("A summary is no reply to be made anew.", param="message")
    if entry is not None and entry.message.role == "assistant":
        entry = tree[entry.parent] if entry.parent else None
    elif message is not None:
        raise RequestError("message: only a reply can be made anew.", param="message")
    if entry is None:
        raise RequestError("There is nothing to answer anew.", code="nothing_to_answer")
    at = entry.id
    session, tree = await store.change(session_id, lambda s, _: s.moved(at))
    return NewTurn(session, tree, at, before)


async def go_on(store: SessionStore, session_id: str, *, message: str | None) -> NewTurn:
    """Write on a reply that was cut; what comes of it takes its place."""
    before, tree = await store.get(session_id)
    old = before.head if message is None else entry_of(tree, message, "message").id
    entry = tree[old] if old is not None else None
    if entry is None or entry.parent is None or not _is_cut(entry):
        raise RequestError(
            "Only a reply that was cut can be continued.",
            param="message",
            code="nothing_to_continue",
        )
    at = entry.parent
    session, tree = await store.change(session_id, lambda s, _: s.moved(at))
    return NewTurn(session, tree, at, before, continued=entry)


def _is_cut(entry: Entry) -> bool:
    m = entry.message
    is_reply = m.role == "assistant" and not entry.covers and not m.tool_calls
    return is_reply and entry.finish in CUT


async def _add_message(
    store: SessionStore, before: Session, at: MessageId | None, text: str, *, is_new_branch: bool
) -> NewTurn:
    message = Message("user", (Text(text),))
    now = table.now()
    added: list[MessageId] = []

    def entries(tree: Tree) -> list[Entry]:
        entry = Entry(tree.id_of(at, message), at, message, now)
        added.extend([] if entry.id in tree else [entry.id])
        return [entry]

    def change(session: Session, tree: Tree) -> Session:
        head = tree.id_of(at, message)
        session = session.branched(head) if is_new_branch else session.moved(head)
        return replace(session, title=session.title or title_of(text), updated=now)

    session, tree = await store.change(before.id, change, entries=entries)
    assert session.head is not None
    return NewTurn(session, tree, session.head, before, added[0] if added else None)
