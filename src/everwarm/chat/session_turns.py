"""Turns of held sessions: the straight line, asked with a path of the tree.

    load the path -> Request -> Turns.answer -> frames for all who follow -> reply, durable -> done

A turn runs in a task of its own: it goes on when the page that asked for it is closed. There is one
at a time in a session.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from everwarm.chat import path_table
from everwarm.chat import session_json as wire
from everwarm.chat import session_table as table
from everwarm.chat.library import SessionLibrary, known
from everwarm.chat.live_turn import LiveTurn
from everwarm.chat.session import (
    Choices,
    Entry,
    Session,
    Tree,
    context_used,
    free_name,
    messages_of,
    title_of,
    was_gone_back_to,
)
from everwarm.errors import Cancelled, Conflict, EverwarmError, NotFound, RequestError
from everwarm.history.database import Connection
from everwarm.messages import Message, MessageId, Text
from everwarm.request import Request
from everwarm.server.read_ahead import AheadState
from everwarm.server.turn import Turn
from everwarm.server.turns import Turns


@dataclass(frozen=True, slots=True)
class SessionTurn:
    """A turn that is to be answered: behind `at`, on a branch. `before`: what to go back to where
    the turn is refused, and the message that goes with it. `sums_up`: the reply is a summary."""

    session: Session
    tree: Tree
    at: MessageId
    before: Session
    added: MessageId | None = None
    sums_up: bool = False


SUM_UP: Final = (
    "Sum up our conversation so far, so that it can go on from your summary alone: what was asked, "
    "found and decided, with names and numbers, and what is still open. Write only the summary."
)
SUMMARY_TOKENS: Final = 2048
PLACEHOLDER: Final = "\u2026"
"""Stands for the message that will come: what is in front of it is read ahead."""
Prepare = Callable[[], Awaitable[SessionTurn]]


class SessionTurns:
    """All turns of held sessions. Lives on the event loop."""

    def __init__(self, held: SessionLibrary, turns: Turns, namespace: str) -> None:
        self.held, self.turns, self.namespace = held, turns, namespace
        self.running: dict[str, LiveTurn] = {}

    def free(self, session_id: str) -> None:
        """Raises Conflict where a turn of this session runs."""
        if session_id in self.running:
            raise Conflict(
                "A turn of this session is running. Wait for it, or stop it first.",
                code="session_busy",
            )

    async def start(self, session_id: str, prepare: Prepare) -> LiveTurn:
        """Begin a turn; `prepare` says which. Raises what it raises, and Conflict."""
        self.free(session_id)
        running = self.running[session_id] = LiveTurn("turn_" + secrets.token_hex(12))
        try:
            asked = await prepare()
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
        self.turns.end(running.turn)
        await running.over.wait()
        return True

    async def delete(self, session_id: str) -> int:
        """Delete a session for real: rows, remembered replies, and what the cache holds of it
        alone. How many bytes that were."""
        while await self.stop(session_id):  # a turn may be followed by its summary
            pass
        self.free(session_id)
        gone = await self.held.remove(session_id)
        await self.turns.forget(gone.turns, gone.threads)
        held = await asyncio.to_thread(self.turns.engine.delete, gone.paths)
        return gone.nbytes + held

    # --- the four ways to begin a turn ---

    async def send(self, session_id: str, text: str, parent: str | None) -> LiveTurn:
        """A new message at the end of the present branch; elsewhere, on a branch of its own."""

        async def prepare() -> SessionTurn:
            before, tree = await self.held.get(session_id)
            at = before.head if parent is None else known(tree, parent, "parent").id
            return await self._say(before, at, text, is_new=at != before.head)

        return await self.start(session_id, prepare)

    async def edit(self, session_id: str, message: str, text: str) -> LiveTurn:
        """A user's message in other words, beside the old one, on a branch of its own."""

        async def prepare() -> SessionTurn:
            before, tree = await self.held.get(session_id)
            old = known(tree, message, "message")
            if old.message.role != "user" or old.covers:
                raise RequestError("message: only a user's message can be edited.", param="message")
            return await self._say(before, old.parent, text, is_new=True)

        return await self.start(session_id, prepare)

    async def regenerate(self, session_id: str, message: str | None) -> LiveTurn:
        """A reply anew, beside the old one. A message without a reply gets its first."""

        async def prepare() -> SessionTurn:
            before, tree = await self.held.get(session_id)
            old = before.head if message is None else known(tree, message, "message").id
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
            session, tree = await self.held.change(session_id, lambda s, _: s.moved(at))
            return SessionTurn(session, tree, at, before)

        return await self.start(session_id, prepare)

    async def compact(self, session_id: str) -> LiveTurn:
        """Have the conversation summed up at its end, and go on from the summary on a new branch.

        The old one stays, as warm as it is.
        """

        async def prepare() -> SessionTurn:
            session, tree = await self.held.get(session_id)
            if session.head is None or tree[session.head].covers:
                raise RequestError("There is nothing to sum up.", code="nothing_to_compact")
            return SessionTurn(session, tree, session.head, session, sums_up=True)

        return await self.start(session_id, prepare)

    async def prepare(self, session_id: str) -> AheadState:
        """Restore or read ahead what the session's next turn will begin with."""
        if session_id in self.running:
            return "busy"
        session, tree = await self.held.get(session_id)
        path = tree.path(session.head)
        if max(len(path), context_used(path) or 0) >= self.turns.engine.model.context_length:
            return "too_long"  # a message has a token at least: nothing need be rendered to know
        placeholder = Message("user", (Text(PLACEHOLDER),))
        messages = messages_of(session.choices, path)
        request = self.request(session.choices, (*messages, placeholder))
        state, tokens = await self.turns.prepare(request)
        if tokens:
            await self.held.write(lambda db: path_table.add(db, session_id, self.namespace, tokens))
        return state

    async def _say(
        self, before: Session, at: MessageId | None, text: str, *, is_new: bool
    ) -> SessionTurn:
        said = Message("user", (Text(text),))
        now = table.now()
        added: list[MessageId] = []

        def entries(tree: Tree) -> list[Entry]:
            entry = Entry(tree.id_of(at, said), at, said, now)
            added.extend([] if entry.id in tree else [entry.id])
            return [entry]

        def change(session: Session, tree: Tree) -> Session:
            head = tree.id_of(at, said)
            session = session.branched(head) if is_new else session.moved(head)
            return replace(session, title=session.title or title_of(text), updated=now)

        session, tree = await self.held.change(before.id, change, entries=entries)
        assert session.head is not None
        return SessionTurn(session, tree, session.head, before, added[0] if added else None)

    # --- a turn on its way ---

    async def _run(self, session_id: str, running: LiveTurn, asked: SessionTurn) -> None:
        try:
            shown = None if asked.added is None else asked.tree[asked.at]
            user = wire.message_json(shown, asked.tree) if shown else None
            session = self.shown(asked.session, asked.tree)
            about = {"session": session, "user": user, "turn": running.turn.id}
            running.push(wire.frame("start", about | {"sums_up": asked.sums_up}))
            path = asked.tree.path(asked.at)
            request = self.request(asked.session.choices, messages_of(asked.session.choices, path))
            if asked.sums_up:
                request = _summing_up(request)
            await self.answer(request, running)
            await self._keep(running, asked)
        except (Cancelled, asyncio.CancelledError):  # stopped at once, or the server ends
            await self._keep(running, asked)
        except EverwarmError as e:
            await self._fail(running, asked, e)
        finally:
            self._over(session_id, running)

    async def answer(self, request: Request, running: LiveTurn) -> None:
        """Ask, and tell all who follow."""
        teller = wire.Teller(time.monotonic)
        async for event in self.turns.answer(request, running.turn):
            running.push(*teller.frames(event))
            await asyncio.sleep(0)  # events that wait in a row keep nobody else from being heard

    def request(self, choices: Choices, messages: tuple[Message, ...]) -> Request:
        """What the wire formats make of a body, made of a session."""
        thinking = {} if choices.thinking is None else {"enable_thinking": choices.thinking}
        return Request(
            model=None,
            messages=messages,
            sampling=wire.sampling_of(choices),
            max_tokens=choices.max_tokens,
            template_args=thinking,
            namespace=self.namespace,
            thinking_budget=choices.thinking_budget,
        )

    async def _keep(self, running: LiveTurn, asked: SessionTurn) -> None:
        """Make the reply durable, then say that it is done."""
        reply = running.turn.reply
        if asked.sums_up:
            reply = Message("assistant", (Text(reply.text.strip()),) if reply.text.strip() else ())
        session, tree = await self.held.write(
            lambda db: _write_reply(db, asked, reply, running.turn, self.namespace)
        )
        at = None if asked.sums_up else asked.at
        entry = tree[tree.id_of(at, reply)] if reply.parts else None
        message = wire.message_json(entry, tree) if entry else None
        self._release(session.id, running)
        if not asked.sums_up and self._is_full(session, tree, running.turn):
            with suppress(EverwarmError):  # somebody was quicker, or history.db fails: next time
                await self.compact(session.id)
        running.push(wire.frame("done", {"message": message, "session": self.shown(session, tree)}))

    def _is_full(self, session: Session, tree: Tree, turn: Turn) -> bool:
        """Whether to sum up behind a turn, unasked. Who undid a summary is not given another."""
        if turn.record is None or turn.record.finish in ("cancelled", "error"):
            return False
        own, usual = session.choices.compact_at, self.turns.settings.compact_at
        part = usual if own is None else own
        used = context_used(tree.path(session.head)) or 0
        is_full = part < 1 and used >= part * self.turns.engine.model.context_length
        return is_full and not was_gone_back_to(tree, session.head)

    async def _fail(self, running: LiveTurn, asked: SessionTurn, error: Exception) -> None:
        """Keep what was said before a fault; a turn that was refused was never there."""
        turn = running.turn
        reply = turn.reply
        if reply.parts and not asked.sums_up:
            await self.held.write(lambda db: _write_reply(db, asked, reply, turn, self.namespace))
        elif isinstance(error, RequestError):
            await self.held.write(lambda db: _take_back(db, asked))
        running.push(wire.failed(error))

    def shown(self, session: Session, tree: Tree | None = None) -> dict[str, Any]:
        """A session as clients see it."""
        running = self.running.get(session.id)
        return wire.session_json(
            session,
            tree,
            running=running.turn.id if running else None,
            limit=self.turns.engine.model.context_length,
        )

    def follow(self, session_id: str) -> LiveTurn:
        """The turn that runs now. Raises NotFound."""
        found = self.running.get(session_id)
        if found is None:
            raise NotFound("No turn of this session is running.", code="no_turn")
        return found


def _write_reply(
    db: Connection, asked: SessionTurn, reply: Message, turn: Turn, namespace: str
) -> tuple[Session, Tree]:
    session_id = asked.session.id
    session = table.get(db, session_id)
    record = asdict(turn.record) if turn.record else None  # as `/api/turns` spells it
    if record is not None:
        table.add_turn(db, session_id, record, turn.thread, turn.reply_id)
    if turn.tokens:
        path_table.add(db, session_id, namespace, turn.tokens)
    if asked.sums_up:
        return _write_summary(db, asked, reply, record)
    branch, old = asked.session.branch, session.branches.get(asked.session.branch)
    head: MessageId | None = asked.at
    if reply.parts:
        tree = table.tree(db, session_id)
        head = tree.id_of(asked.at, reply)
        finish = turn.record.finish if turn.record else "cancelled"
        table.add(db, session_id, [Entry(head, asked.at, reply, table.now(), record, finish)])
    elif asked.added is None:
        head = asked.before.branches.get(branch, head)  # a reply that was not made anew after all
    if old == asked.at:
        session = replace(session, branches={**session.branches, branch: head})
    session = replace(session, updated=table.now())
    table.put(db, session)
    return session, table.tree(db, session_id)


def _write_summary(
    db: Connection, asked: SessionTurn, summary: Message, record: Mapping[str, Any] | None
) -> tuple[Session, Tree]:
    """A branch of its own, whose first message the summary is."""
    session, tree = table.get(db, asked.session.id), table.tree(db, asked.session.id)
    if summary.parts and record and record["finish"] != "cancelled":
        head, now = tree.id_of(None, summary), table.now()
        entry = Entry(head, None, summary, now, record, record["finish"], asked.at)
        table.add(db, session.id, [entry])
        session = session.branched(head, _compacted(session))
    table.put(db, replace(session, updated=table.now()))
    return session, table.tree(db, session.id)


def _compacted(session: Session) -> str:
    name = "compacted"
    return name if name not in session.branches else free_name(session.branches, name)


def _summing_up(request: Request) -> Request:
    """The conversation with a wish for its summary: what was read stays as it is."""
    asked = Message("user", (Text(SUM_UP),))
    most = min(request.max_tokens or SUMMARY_TOKENS, SUMMARY_TOKENS)
    return replace(request, messages=(*request.messages, asked), max_tokens=most)


def _take_back(db: Connection, asked: SessionTurn) -> None:
    before = asked.before
    session = replace(
        table.get(db, before.id), branch=before.branch, branches=before.branches, title=before.title
    )
    table.put(db, session)
    if asked.added is not None:
        table.remove_messages(db, before.id, [asked.added])
