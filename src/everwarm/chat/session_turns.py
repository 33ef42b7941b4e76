"""Turns of held sessions: the straight line, asked with a path of the tree.

    load the path -> Request -> Turns.answer -> frames for all who follow -> reply, durable -> done

A turn runs in a task of its own: it goes on when the page that asked for it is closed. There is one
at a time in a session.
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
from everwarm.chat.session import (
    Entry,
    Session,
    Tree,
    context_used,
    messages_of,
)
from everwarm.chat.session_store import SessionStore
from everwarm.errors import Cancelled, Conflict, EverwarmError, NotFound, RequestError
from everwarm.events import Event
from everwarm.history.database import Connection
from everwarm.messages import Message, MessageId, Text
from everwarm.request import Request
from everwarm.server.read_ahead import AheadState
from everwarm.server.record import Trace
from everwarm.server.turn import Turns
from everwarm.wire.format import reply_of

PLACEHOLDER: Final = "\u2026"
"""Stands for the message that will come: what is in front of it is read ahead."""


class SessionTurns:
    """All turns of held sessions. Lives on the event loop."""

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

    async def start(self, session_id: str, begin: TurnMaker) -> LiveTurn:
        """Start a turn. Raises Conflict where one runs, and what `begin` raises."""
        self.check_idle(session_id)
        running = self.running[session_id] = LiveTurn("turn_" + secrets.token_hex(12))
        try:
            asked = await begin(self.store, session_id)
            running.task = asyncio.create_task(self._run(session_id, running, asked))
        finally:
            if running.task is None:
                self._over(session_id, running)
        return running

    def _over(self, session_id: str, running: LiveTurn) -> None:
        self._release(session_id, running)
        running.end()

    def _release(self, session_id: str, running: LiveTurn) -> None:
        """The next turn may begin; it may have begun already."""
        if self.running.get(session_id) is running:
            del self.running[session_id]

    async def stop(self, session_id: str) -> bool:
        """End a session's turn, and wait until what it said is durable. Whether one ran."""
        running = self.running.get(session_id)
        if running is None:
            return False
        self.turns.end(running.live)
        await running.over.wait()
        return True

    async def delete(self, session_id: str) -> int:
        """Delete a session for real: rows, remembered replies, and what the cache holds of it
        alone. How many bytes that were."""
        while await self.stop(session_id):  # a turn may be followed by its summary
            pass
        self.check_idle(session_id)
        gone = await self.store.remove(session_id)
        await self.turns.forget(gone.turns, gone.threads)
        cached = await asyncio.to_thread(self.turns.engine.forget, gone.paths)
        return gone.nbytes + cached

    async def prepare(self, session_id: str) -> AheadState:
        """Restore or read ahead what the session's next turn will begin with."""
        if session_id in self.running:
            return "busy"
        session, tree = await self.store.get(session_id)
        path = tree.path(session.head)
        if max(len(path), context_used(path) or 0) >= self.turns.engine.model.context_length:
            return "too_long"  # a message has a token at least: nothing need be rendered to know
        placeholder = Message("user", (Text(PLACEHOLDER),))
        messages = messages_of(session.choices, path)
        request = wire.request_of(session.choices, (*messages, placeholder), self.namespace)
        state, tokens = await self.turns.prepare(request)
        if tokens:
            await self.store.write(
                lambda db: path_table.add(db, session_id, self.namespace, tokens)
            )
        return state

    # --- a turn on its way ---

    async def _run(self, session_id: str, running: LiveTurn, asked: NewTurn) -> None:
        said: list[Event] = []
        trace = Trace()
        try:
            shown = None if asked.added is None else asked.tree[asked.at]
            user = wire.message_json(shown, asked.tree) if shown else None
            session = self.shown(asked.session, asked.tree)
            about = {"session": session, "user": user, "turn": running.live.id}
            running.push(wire.frame("start", about | {"sums_up": asked.sums_up}))
            path = asked.tree.path(asked.at)
            choices = asked.session.choices
            request = wire.request_of(choices, messages_of(choices, path), self.namespace)
            if asked.sums_up:
                request = summary_request(request)
            await self.answer(request, running, said, trace)
            await self._keep(running, asked, said, trace)
        except (Cancelled, asyncio.CancelledError):  # stopped at once, or the server ends
            await self._keep(running, asked, said, trace)
        except EverwarmError as e:
            await self._fail(running, asked, said, trace, e)
        finally:
            self._over(session_id, running)

    async def answer(
        self, request: Request, running: LiveTurn, said: list[Event], trace: Trace
    ) -> None:
        """Ask, tell all who follow, and collect what was said."""
        teller, live = wire.Teller(time.monotonic), running.live
        events = self.turns.answer(
            request,
            turn_id=live.id,
            arrived=time.perf_counter(),
            parse_s=0.0,
            trace=trace,
            live=live,
        )
        async for event in events:
            said.append(event)
            running.push(*teller.frames(event))
            await asyncio.sleep(0)  # events that wait in a row keep nobody else from being heard

    async def _keep(
        self, running: LiveTurn, asked: NewTurn, said: list[Event], trace: Trace
    ) -> None:
        """Make the reply durable, then say that it is done."""
        reply = reply_of(said)
        if asked.sums_up:
            reply = Message("assistant", (Text(reply.text.strip()),) if reply.text.strip() else ())
        session, tree = await self.store.write(
            lambda db: _write_reply(db, asked, reply, trace, self.namespace)
        )
        at = None if asked.sums_up else asked.at
        entry = tree[tree.id_of(at, reply)] if reply.parts else None
        message = wire.message_json(entry, tree) if entry else None
        self._release(session.id, running)
        if not asked.sums_up and self._is_full(session, tree, trace):
            with suppress(EverwarmError):  # somebody was quicker, or history.db fails: next time
                await self.start(session.id, compact)
        running.push(wire.frame("done", {"message": message, "session": self.shown(session, tree)}))

    def _is_full(self, session: Session, tree: Tree, trace: Trace) -> bool:
        """Whether to sum up behind a turn, unasked."""
        if trace.record is None or trace.record.finish in ("cancelled", "error"):
            return False
        own, usual = session.choices.compact_at, self.turns.settings.compact_at
        part = usual if own is None else own
        return part < 1 and is_due(session, tree, part * self.turns.engine.model.context_length)

    async def _fail(
        self,
        running: LiveTurn,
        asked: NewTurn,
        said: list[Event],
        trace: Trace,
        error: Exception,
    ) -> None:
        """Keep what was said before a fault; a turn that was refused was never there."""
        reply = reply_of(said)
        if reply.parts and not asked.sums_up:
            await self.store.write(lambda db: _write_reply(db, asked, reply, trace, self.namespace))
        elif isinstance(error, RequestError):
            await self.store.write(lambda db: _take_back(db, asked))
        running.push(wire.failed(error))

    def shown(self, session: Session, tree: Tree | None = None) -> dict[str, Any]:
        """A session as clients see it."""
        running = self.running.get(session.id)
        return wire.session_json(
            session,
            tree,
            running=running.live.id if running else None,
            limit=self.turns.engine.model.context_length,
        )

    def follow(self, session_id: str) -> LiveTurn:
        """The turn that runs now. Raises NotFound."""
        found = self.running.get(session_id)
        if found is None:
            raise NotFound("No turn of this session is running.", code="no_turn")
        return found


def _write_reply(
    db: Connection, asked: NewTurn, reply: Message, trace: Trace, namespace: str
) -> tuple[Session, Tree]:
    session_id = asked.session.id
    session = table.get(db, session_id)
    record = trace.record
    turn = asdict(record) if record else None  # as `/api/turns` spells it
    if turn is not None:
        table.add_turn(db, session_id, turn, trace.thread, trace.reply)
    if trace.tokens:
        path_table.add(db, session_id, namespace, trace.tokens)
    if asked.sums_up:
        return write_summary(db, asked, reply, turn)
    branch, old = asked.session.branch, session.branches.get(asked.session.branch)
    head: MessageId | None = asked.at
    if reply.parts:
        tree = table.tree(db, session_id)
        head = tree.id_of(asked.at, reply)
        finish = record.finish if record else "cancelled"
        table.add(db, session_id, [Entry(head, asked.at, reply, table.now(), turn, finish)])
    elif asked.added is None:
        head = asked.before.branches.get(branch, head)  # a reply that was not made anew after all
    if old == asked.at:
        session = replace(session, branches={**session.branches, branch: head})
    session = replace(session, updated=table.now())
    table.put(db, session)
    return session, table.tree(db, session_id)


def _take_back(db: Connection, asked: NewTurn) -> None:
    before = asked.before
    session = replace(
        table.get(db, before.id), branch=before.branch, branches=before.branches, title=before.title
    )
    table.put(db, session)
    if asked.added is not None:
        table.remove_messages(db, before.id, [asked.added])
