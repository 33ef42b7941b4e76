"""Turns of sessions: the straight line of a request, between two transactions.

    path of the tree -> Request -> Turns.answer -> frames for all who follow -> reply, durable

A turn runs in a task of its own, so it goes on when the page that asked for it is closed. A session
has at most one at a time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Final

from everwarm.chat import path_table
from everwarm.chat import session_json as wire
from everwarm.chat import session_table as table
from everwarm.chat.compaction import compact, is_due, summary_request, write_summary
from everwarm.chat.live_turn import LiveTurn
from everwarm.chat.new_turn import NewTurn, TurnMaker
from everwarm.chat.session import Entry, Session, Tree, context_used, messages_of
from everwarm.chat.session_store import SessionStore
from everwarm.errors import Cancelled, Conflict, EverwarmError, NotFound, RequestError
from everwarm.events import Started
from everwarm.history.database import Connection
from everwarm.messages import Message, MessageId, Text
from everwarm.server.engine_state import is_broken, not_yet
from everwarm.server.read_ahead import AheadState
from everwarm.server.turn import Turn
from everwarm.server.turns import Turns

PLACEHOLDER: Final = "\u2026"
"""Stands for the next message of a user when all that comes before it is read ahead."""


class SessionTurns:
    """All turns of sessions that run now, by the session's id. Lives on the event loop."""

    def __init__(self, store: SessionStore, turns: Turns, namespace: str) -> None:
        self.store, self.turns, self.namespace = store, turns, namespace
        self.running: dict[str, LiveTurn] = {}

    def check_idle(self, session_id: str) -> None:
        """Raise Conflict where a turn of this session runs."""
        if session_id in self.running:
            raise Conflict(
                "A turn of this session is running. Wait for it, or stop it first.",
                code="session_busy",
            )

    def live_turn(self, session_id: str) -> LiveTurn:
        """The session's turn that runs now. Raises NotFound."""
        live = self.running.get(session_id)
        if live is None:
            raise NotFound("No turn of this session is running.", code="no_turn")
        return live

    async def start(self, session_id: str, make: TurnMaker) -> LiveTurn:
        """Start a turn. Raises Conflict where one runs, and what `make` raises."""
        self.check_idle(session_id)
        live = self.running[session_id] = LiveTurn("turn_" + secrets.token_hex(12))
        try:
            new = await make(self.store, session_id)
            live.task = asyncio.create_task(self._run(session_id, live, new))
        finally:
            if live.task is None:
                self._end(session_id, live)
        return live

    async def stop(self, session_id: str) -> bool:
        """Stop a session's turn, and wait until its reply is durable. Whether one ran."""
        live = self.running.get(session_id)
        if live is None:
            return False
        self.turns.end(live.turn)
        await live.over.wait()
        return True

    async def delete(self, session_id: str) -> int:
        """Delete a session for good: its rows, its remembered replies, and what the cache holds of
        it alone. How many bytes that were. Raises Overloaded where there is no engine to ask: then
        nothing is deleted."""
        if is_broken(now := self.turns.engine.health()):
            raise not_yet(now)
        while await self.stop(session_id):  # a turn may be followed by its summary
            pass
        self.check_idle(session_id)
        removed = await self.store.remove(session_id)
        await self.turns.forget(removed.turns, removed.threads)
        cached_nbytes = await asyncio.to_thread(self.turns.engine.delete, removed.paths)
        return removed.nbytes + cached_nbytes

    async def prepare(self, session_id: str) -> AheadState:
        """Restore or read ahead what the session's next turn will begin with."""
        if session_id in self.running:
            return "busy"
        session, tree = await self.store.get(session_id)
        path = tree.path(session.head)
        if max(len(path), context_used(path) or 0) >= self.turns.engine.model.context_length:
            return "too_long"  # each message has at least a token: nothing has to be rendered
        placeholder = Message("user", (Text(PLACEHOLDER),))
        messages = (*messages_of(session.choices, path), placeholder)
        own = self.namespace
        state, tokens = await self.turns.prepare(wire.request_of(session.choices, messages, own))
        if tokens:
            await self.store.write(lambda db: path_table.add(db, session_id, own, tokens))
        return state

    def describe(self, session: Session, tree: Tree | None = None) -> dict[str, Any]:
        """A session as clients see it."""
        live = self.running.get(session.id)
        running = live.turn.id if live else None
        limit = self.turns.engine.model.context_length
        return wire.session_json(session, tree, running=running, limit=limit)

    async def _run(self, session_id: str, live: LiveTurn, new: NewTurn) -> None:
        try:
            added = None if new.added is None else wire.message_json(new.tree[new.at], new.tree)
            session = self.describe(new.session, new.tree)
            about = {"session": session, "user": added, "turn": live.turn.id}
            live.push(wire.frame("start", about | {"sums_up": new.sums_up}))
            await self._answer(live, new)
            await self._keep(live, new)
        except (Cancelled, asyncio.CancelledError):  # stopped at once, or the server ends
            await self._keep(live, new)
        except EverwarmError as e:
            await self._fail(live, new, e)
        finally:
            self._end(session_id, live)

    async def _answer(self, live: LiveTurn, new: NewTurn) -> None:
        choices = new.session.choices
        messages = messages_of(choices, new.tree.path(new.at))
        request = wire.request_of(choices, messages, self.namespace)
        if new.sums_up:
            request = summary_request(request)
        if new.continued is not None:
            request = replace(request, continued=new.continued.message)
        frames = wire.TurnFrames(time.monotonic)
        async for event in self.turns.answer(request, live.turn):
            live.push(*frames.of(event))
            if new.continued is not None and isinstance(event, Started):
                live.push(*wire.told(live.turn.reply))  # not what the cut made of half a character
            await asyncio.sleep(0)  # a burst of events must not keep other tasks waiting

    async def _keep(self, live: LiveTurn, new: NewTurn) -> None:
        """Make the reply durable, then tell that the turn is done."""
        turn, reply = live.turn, live.turn.reply
        if new.sums_up:
            text = reply.text.strip()
            reply = Message("assistant", (Text(text),) if text else ())
        session, tree = await self.store.write(
            lambda db: _write_reply(db, new, reply, turn, self.namespace)
        )
        at = None if new.sums_up else new.at
        entry = tree[tree.id_of(at, reply)] if reply.parts else None
        message = wire.message_json(entry, tree) if entry else None
        self._release(session.id, live)
        if not new.sums_up and self._is_full(session, tree, turn):
            with suppress(EverwarmError):  # another turn was quicker, or history.db fails
                await self.start(session.id, compact)
        done = {"message": message, "session": self.describe(session, tree)}
        live.push(wire.frame("done", done))

    def _is_full(self, session: Session, tree: Tree, turn: Turn) -> bool:
        """Whether the conversation is summed up without being asked to."""
        if turn.record is None or turn.record.finish in ("cancelled", "error", "engine_died"):
            return False
        own, usual = session.choices.compact_at, self.turns.settings.compact_at
        part = usual if own is None else own
        return part < 1 and is_due(session, tree, part * self.turns.engine.model.context_length)

    async def _fail(self, live: LiveTurn, new: NewTurn, error: Exception) -> None:
        """Keep what was written before a fault. A turn that was refused leaves nothing."""
        turn, reply = live.turn, live.turn.reply
        if reply.parts and not new.sums_up:
            await self.store.write(lambda db: _write_reply(db, new, reply, turn, self.namespace))
        elif isinstance(error, RequestError) or new.continued is not None:
            await self.store.write(lambda db: _undo(db, new))
        live.push(wire.error_frame(error))

    def _end(self, session_id: str, live: LiveTurn) -> None:
        self._release(session_id, live)
        live.end()

    def _release(self, session_id: str, live: LiveTurn) -> None:
        """Let the next turn begin; it may have begun already."""
        if self.running.get(session_id) is live:
            del self.running[session_id]


def _write_reply(
    db: Connection, new: NewTurn, reply: Message, turn: Turn, namespace: str
) -> tuple[Session, Tree]:
    session_id = new.session.id
    session = table.get(db, session_id)
    record = asdict(turn.record) if turn.record else None  # as `/api/turns` spells it
    if record is not None:
        table.add_turn(db, session_id, record, turn.thread, turn.reply_id)
    if turn.tokens:
        path_table.add(db, session_id, namespace, turn.tokens)
    if new.sums_up:
        return write_summary(db, new, reply, record)
    branch, old = new.session.branch, session.branches.get(new.session.branch)
    head: MessageId | None = new.at
    if reply.parts:
        tree = table.tree(db, session_id)
        head = tree.id_of(new.at, reply)
        finish = turn.record.finish if turn.record else "cancelled"
        table.add(db, session_id, [Entry(head, new.at, reply, table.now(), record, finish)])
    elif new.added is None:
        head = new.before.branches.get(branch, head)  # regenerating gave nothing: the old reply
    if old == new.at:
        session = replace(session, branches={**session.branches, branch: head})
    session = replace(session, updated=table.now())
    table.put(db, session)
    tree = table.tree(db, session_id)
    begun = new.continued.id if new.continued is not None else head
    if begun is not None and begun != head and _is_loose(session, tree, begun):
        table.remove_messages(db, session_id, [begun])
        tree = table.tree(db, session_id)
    return session, tree


def _is_loose(session: Session, tree: Tree, message: MessageId) -> bool:
    """Whether no branch ends with this message, and nothing follows it."""
    return tree.below(message) == [message] and message not in session.branches.values()


def _undo(db: Connection, new: NewTurn) -> None:
    """Undo what was written when the turn began."""
    before = new.before
    session = replace(
        table.get(db, before.id), branch=before.branch, branches=before.branches, title=before.title
    )
    table.put(db, session)
    if new.added is not None:
        table.remove_messages(db, before.id, [new.added])
