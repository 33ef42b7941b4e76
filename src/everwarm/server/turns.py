"""The straight line of a turn: request -> prompt -> job -> tokens -> events -> record."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.errors import Cancelled, EverwarmError, TooLong
from everwarm.events import Event, Miss, TurnRecord
from everwarm.job import Engine, Leased, ModelInfo
from everwarm.messages import MessageId
from everwarm.prompt.proof import limits_of
from everwarm.prompt.raw_prompt import count_tokens
from everwarm.prompt.render import Renderer
from everwarm.prompt.why import may_miss, why
from everwarm.replies import ReplyStore
from everwarm.request import HistoryMode, Request
from everwarm.server.engine_state import is_broken, not_yet, will_be_ready
from everwarm.server.grammars import Compiler
from everwarm.server.ignored import IgnoredFields
from everwarm.server.job_builder import JobBuilder
from everwarm.server.model_names import names_of_no_effect
from everwarm.server.outbox import Outbox
from everwarm.server.read_ahead import Ahead, AheadState, coming
from everwarm.server.record import log_line, without_words
from everwarm.server.request_queue import RequestQueue
from everwarm.server.totals import Totals
from everwarm.server.turn import Turn
from everwarm.tokens import Prompt, Tokens, tokens_of

T = TypeVar("T")
log = logging.getLogger("everwarm.turn")


@dataclass(slots=True)
class Turns:
    """Answers requests with one engine. Lives on the event loop."""

    engine: Engine
    codec: Codec
    settings: Settings
    store: ReplyStore | None = None
    running: dict[str, Turn] = field(default_factory=dict)
    records: deque[TurnRecord] = field(default_factory=lambda: deque(maxlen=1000))
    totals: Totals = field(default_factory=Totals)
    queue: RequestQueue = field(init=False)
    _worker: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="everwarm-render")
    )
    _renderer: Renderer = field(init=False)
    _builder: JobBuilder = field(init=False)
    _compiler: Compiler = field(init=False)
    _ignored: IgnoredFields = field(init=False)
    _ahead: Ahead = field(init=False)

    def __post_init__(self) -> None:
        settings, engine = self.settings, self.engine
        mode: HistoryMode = "template" if settings.history == "template" else "verbatim"
        self._renderer = Renderer(
            self.codec,
            history=mode,
            sticky_reminders=settings.sticky_reminders,
            store=self.store,
            control_tokens_in_text=settings.control_tokens_in_text,
            context_length=engine.model.context_length,
        )
        self.queue = RequestQueue(settings.max_queue)
        self._builder = JobBuilder(engine, self.codec, settings, self._renderer)
        self._compiler, self._ahead = Compiler(engine), Ahead(engine)
        self._ignored = IgnoredFields(strict=settings.strict)

    async def answer(
        self, request: Request, turn: Turn, place: object | None = None
    ) -> AsyncGenerator[Event, None]:
        """The events of one turn. Closing the generator cancels the job; what was read is kept.

        `place`: the one that its request has in the queue; without one it takes its own.
        """
        self._renderer.bound(self.engine.model.context_length)
        request = self._renderer.fitted(request)
        names = names_of_no_effect(request.model, self.engine.model)
        ignored = (*request.ignored, *names, *self._renderer.ignored(request))
        self._ignored.check(ignored)
        self._builder.check(request)
        if is_broken(now := self.engine.health()):
            raise not_yet(now)
        with self.queue.place() if place is None else nullcontext():
            self._ahead.stop()
            self.running[turn.id] = turn
            turn.begin(self.engine.model.id, ignored)
            try:
                async with aclosing(self._events(request, turn)) as events:
                    async for event in events:
                        yield event
            except EverwarmError as e:
                turn.failed(e)
                raise
            finally:
                self.running.pop(turn.id, None)
                self._file(turn.close())

    async def _events(self, request: Request, turn: Turn) -> AsyncGenerator[Event, None]:
        rendered = await self._work(lambda: self._builder.rendered(request))
        grammar = await self._compiler.compiled(rendered.wanted)
        turn.rendered()
        job = self._builder.job(turn.id, request, rendered, grammar)
        yield turn.made(rendered.prompt, rendered.parser, rendered.begun)
        if turn.is_cancelled:
            raise Cancelled("The turn was stopped before anything was read.")
        outbox = Outbox()
        self.engine.submit(job, outbox.put)
        miss: Future[Miss | None] | None = None
        try:
            while not turn.is_over:
                output = await outbox.get()
                for event in turn.take(output):
                    yield event
                if turn.is_stopped:
                    self.engine.cancel(job.id)
                if isinstance(output, Leased) and not rendered.begun:
                    miss = self._explain(rendered.prompt, turn.so_far)
        except (GeneratorExit, asyncio.CancelledError):
            if miss and miss.done():
                turn.explained(miss.result())
            turn.left()
            raise
        finally:
            self.engine.cancel(job.id)
            remembered = self._remember(turn)
        if miss:
            turn.explained(await asyncio.wrap_future(miss))
        if remembered:
            await asyncio.wrap_future(remembered)
        yield turn.finished()

    def cancel(self, turn_id: str) -> bool:
        """End a turn at its next step, with the reply so far. Whether there is such a turn."""
        turn = self.running.get(turn_id)
        if turn is not None:
            self.end(turn)
        return turn is not None

    def end(self, turn: Turn) -> None:
        """End a turn at its next step, or before its first."""
        turn.is_cancelled = True
        self.engine.cancel(turn.id)

    async def checked(self, request: Request) -> Request:
        """The same request, with a raw text as its tokens. Raises what would refuse its turn."""
        self._builder.check(request)
        if request.raw is None:
            return request
        prompt = await self._work(lambda: self._builder.prompt(request))
        self._builder.room(len(prompt.tokens))
        return replace(request, raw=tuple(prompt.tokens))

    async def prepare(self, request: Request) -> tuple[AheadState, Tokens[int]]:
        """Read ahead what this request shares with one that has another last message.

        Also returns these tokens. What leaves no room for a reply would be refused as a turn: none
        of it is read.
        """
        if self.running or will_be_ready(self.engine.health()):
            return "busy", tokens_of()
        try:
            whole = await self._work(lambda: self._renderer.prompt(request))
            self._builder.room(len(whole.tokens))
        except TooLong:
            return "too_long", tokens_of()
        prompt = coming(whole)
        if prompt is None:
            return "ready", tokens_of()
        if self.running:
            return "busy", tokens_of()
        return await self._ahead.read(prompt, request.namespace), prompt.tokens

    async def forget(self, turn_ids: Collection[str], threads: Collection[MessageId]) -> None:
        """Forget these turns, and the text of these conversations."""
        kept = (without_words(r) for r in self.records if r.id not in turn_ids)
        self.records = deque(kept, maxlen=self.records.maxlen)
        await self._work(lambda: self._renderer.forget(threads))

    @property
    def model(self) -> ModelInfo:
        """The model, with what its dialect can write, and what was proved of its template."""
        dialect, proof = self._renderer.dialect, self._renderer.proof
        return replace(
            self.engine.model,
            has_reasoning=dialect.reasoning is not None,
            has_tools=bool(dialect.calls),
            dialect=dialect.name,
            proved=proof.proved,
            not_proved={str(kind): why for kind, why in proof.faults.items()},
            limits=limits_of(proof, dialect),
        )

    async def count(self, request: Request) -> int:
        """How many tokens a conversation has. Uses neither model, cache nor history."""
        self._ignored.check(request.ignored)
        renderer = self._renderer
        return await asyncio.to_thread(
            count_tokens, self.codec, renderer.fitted(request), renderer.splicer, renderer.length
        )

    async def _work(self, fn: Callable[[], T]) -> T:
        """Run it on the renderer's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, fn)

    def _remember(self, turn: Turn) -> Future[None] | None:
        """Have the renderer remember the reply, however the turn ended."""
        ids = turn.reply_tokens
        if turn.prompt is None or not ids:
            return None
        return self._worker.submit(self._renderer.remember, turn.prompt, ids, turn.reply)

    def _explain(self, prompt: Prompt, record: TurnRecord) -> Future[Miss | None] | None:
        """Have the renderer say why so much is read, while the engine reads."""
        if not may_miss(record):
            return None

        def explained() -> Miss | None:
            evidence = self._renderer.evidence(prompt)
            return why(record, prompt, evidence, has_cache=self.settings.cache)

        return self._worker.submit(explained)

    def _file(self, record: TurnRecord) -> None:
        self.records.appendleft(record)
        self.totals.add(record)
        log.info(log_line(record))
