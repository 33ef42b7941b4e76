"""The straight line of a turn: request -> prompt -> job -> tokens -> events -> record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.errors import Cancelled, EverwarmError, RequestError, TooLong
from everwarm.events import Event, Finish, Finished, Miss, Progress, Started, TurnRecord
from everwarm.job import (
    Ended,
    Engine,
    Failed,
    Job,
    Leased,
    Markers,
    ModelInfo,
    Output,
    Prefilled,
    Token,
)
from everwarm.messages import MessageId
from everwarm.prompt.call_ids import new_call_id
from everwarm.prompt.dialects import families
from everwarm.prompt.grammars.reply_grammar import Wanted, check_schemas, wanted
from everwarm.prompt.parse import ReplyParser
from everwarm.prompt.proof import limits_of
from everwarm.prompt.raw_prompt import count_tokens, raw_prompt
from everwarm.prompt.render import Renderer
from everwarm.replies import ReplyStore, reply_id
from everwarm.request import HistoryMode, Request
from everwarm.server.grammars import Compiler
from everwarm.server.ignored import IgnoredFields
from everwarm.server.model_names import names_of_no_effect
from everwarm.server.outbox import Outbox
from everwarm.server.queue import Queue, RunningTurn
from everwarm.server.read_ahead import Ahead, AheadState, coming
from everwarm.server.record import (
    RecordBuilder,
    Trace,
    log_line,
    lost,
    near_scaffold,
    without_words,
)
from everwarm.server.totals import Totals
from everwarm.tokens import Prompt, Tokens, fork_marks, tokens_of

T = TypeVar("T")
log = logging.getLogger("everwarm.turn")


@dataclass(slots=True)
class Turns:
    """Answers requests with one engine. Lives on the event loop."""

    engine: Engine
    codec: Codec
    settings: Settings
    store: ReplyStore | None = None
    running: dict[str, RunningTurn] = field(default_factory=dict)
    records: deque[TurnRecord] = field(default_factory=lambda: deque(maxlen=1000))
    totals: Totals = field(default_factory=Totals)
    _ignored: IgnoredFields = field(init=False)
    _worker: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="everwarm-render")
    )
    _renderer: Renderer = field(init=False)
    _ahead: Ahead = field(init=False)
    _compiler: Compiler = field(init=False)
    _no_calls: dict[int, float] = field(default_factory=dict)
    queue: Queue = field(init=False)

    def __post_init__(self) -> None:
        self.queue = Queue(self.settings.max_queue)
        self._ahead = Ahead(self.engine)
        self._ignored = IgnoredFields(strict=self.settings.strict)
        mode: HistoryMode = "template" if self.settings.history == "template" else "verbatim"
        self._renderer = Renderer(
            self.codec,
            history=mode,
            sticky_reminders=self.settings.sticky_reminders,
            store=self.store,
            control_tokens_in_text=self.settings.control_tokens_in_text,
            context_length=self.engine.model.context_length,
        )
        self._compiler = Compiler(self.engine)
        # A call has one of these tokens: never drawn, no call is possible.
        self._no_calls = dict.fromkeys(families.call_tokens(self.codec), float("-inf"))

    async def answer(
        self,
        request: Request,
        *,
        turn_id: str,
        arrived: float,
        parse_s: float,
        trace: Trace | None = None,
        live: RunningTurn | None = None,
        place: object | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of one turn. Closing the generator cancels the job; what was read is kept.

        `place`: its request's; without one it takes one of its own.
        """
        request = self._renderer.fitted(request)
        names = names_of_no_effect(request.model, self.engine.model)
        ignored = (*request.ignored, *names, *self._renderer.ignored(request))
        self._ignored.check(ignored)
        self._check(request)
        with self.queue.place() if place is None else nullcontext():
            self._ahead.stop()
            live = self.running[turn_id] = live or RunningTurn(turn_id)
            draft = RecordBuilder(turn_id, self.engine.model.id, arrived, parse_s, trace or Trace())
            draft.set(ignored=ignored)
            try:
                async for event in self._events(request, draft, live):
                    yield event
            except EverwarmError as e:
                reason: Finish = "cancelled" if isinstance(e, Cancelled) else "error"
                draft.finish(reason, error=e.message)
                raise
            finally:
                self.running.pop(turn_id, None)
                draft.trace.record = draft.record
                self._file(draft.record)

    async def checked(self, request: Request) -> Request:
        """The same request, where it would not be refused as a turn; a raw text as its tokens."""
        self._check(request)
        if request.raw is None:
            return request
        prompt = await self._work(lambda: self._prompt(request))
        self._room(len(prompt.tokens))
        return replace(request, raw=tuple(prompt.tokens))

    def cancel(self, turn_id: str) -> bool:
        """End a turn at its next step: it says what it has so far. Whether there is such a turn."""
        live = self.running.get(turn_id)
        if live is not None:
            self.end(live)
        return live is not None

    def end(self, live: RunningTurn) -> None:
        """End a turn at its next step, or before its first."""
        live.is_cancelled = True
        self.engine.cancel(live.id)

    async def prepare(self, request: Request) -> tuple[AheadState, Tokens[int]]:
        """Read ahead what another last message than this one's would share; and which tokens.

        What leaves no room for a reply would be refused as a turn: none of it is read.
        """
        if self.running:
            return "busy", tokens_of()
        try:
            whole = await self._work(lambda: self._renderer.prompt(request))
            self._room(len(whole.tokens))
        except TooLong:
            return "too_long", tokens_of()
        prompt = coming(whole)
        if prompt is None:
            return "ready", tokens_of()
        if self.running:
            return "busy", tokens_of()
        return await self._ahead.read(prompt, request.namespace), prompt.tokens

    async def forget(self, turn_ids: Collection[str], threads: Collection[MessageId]) -> None:
        """Remember nothing of these turns, nor of these conversations' words."""
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
        """How many tokens a conversation has. Beside all turns: no model, no cache, no history."""
        self._ignored.check(request.ignored)
        renderer = self._renderer
        return await asyncio.to_thread(
            count_tokens, self.codec, renderer.fitted(request), renderer.splicer, renderer.length
        )

    async def _events(
        self, request: Request, draft: RecordBuilder, live: RunningTurn
    ) -> AsyncIterator[Event]:
        began = time.perf_counter()
        prompt, forced, shape = await self._work(lambda: self._texts(request))
        grammar = await self._compiler.compiled(shape)
        draft.set(render_s=time.perf_counter() - began)
        job = self._job(request, prompt, draft.record.id)
        job = replace(job, forced=forced, grammar=grammar)
        draft.made(prompt)
        may_call = request.tool_choice != "none" and not prompt.kept_tools
        yield Started(len(prompt.tokens), draft.record.ignored)
        parser = ReplyParser(
            self.codec,
            tools=(*request.tools, *request.deferred),
            tools_allowed=may_call,
            opens_reasoning=prompt.opens_reasoning,
            stop=request.stop,
            new_call_id=new_call_id,
            raw=request.raw is not None,
        )
        if live.is_cancelled:
            raise Cancelled("The turn was stopped before anything was read.")
        outbox = Outbox()
        self.engine.submit(job, outbox.put)
        try:
            async for event in self._read(outbox, parser, draft, live, prompt):
                yield event
        except (GeneratorExit, asyncio.CancelledError):
            if draft.miss and draft.miss.done():
                draft.set(miss=draft.miss.result())
            draft.left(live.done)
            draft.finish("cancelled")
            raise
        finally:
            self.engine.cancel(job.id)
            draft.set(completion_tokens=parser.n_tokens, reasoning_tokens=parser.n_reasoning)
            ids, reply = list(parser.ids), parser.message
            if ids and request.raw is None:
                draft.trace.reply = reply_id(prompt.head, reply)
                remembered = self._worker.submit(self._renderer.remember, prompt, ids, reply)
        if draft.miss:
            draft.set(miss=await asyncio.wrap_future(draft.miss))
        if ids and request.raw is None:
            await asyncio.wrap_future(remembered)
        draft.finish(draft.record.finish)
        yield Finished(draft.record.finish, draft.record, parser.stop_text)

    async def _read(
        self,
        outbox: Outbox,
        parser: ReplyParser,
        draft: RecordBuilder,
        live: RunningTurn,
        prompt: Prompt,
    ) -> AsyncIterator[Event]:
        """Outputs to events until the job is over."""
        cached = 0
        while True:
            out: Output = await outbox.get()
            match out:
                case Leased():
                    cached = out.cached_tokens
                    draft.leased(out)
                    yield Progress(cached, draft.record.prompt_tokens, cached)
                    if self._may_miss(draft.record):
                        draft.miss = self._worker.submit(self._explain, prompt, draft.record)
                case Prefilled():
                    live.done, live.total = out.done, out.total
                    yield Progress(out.done, out.total, cached)
                case Token():
                    draft.first_token()
                    draft.trace.tokens.append(out.id)
                    live.completion += 1
                    if not parser.stopped:
                        for event in parser.feed(out):
                            yield event
                        if parser.stopped:  # only the parser knows what is text of the answer
                            self.engine.cancel(live.id)
                case Ended():
                    for event in parser.finish():
                        yield event
                    draft.ended(out, parser)
                    return
                case Failed():
                    raise out.error

    async def _work(self, fn: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, fn)

    def _texts(self, request: Request) -> tuple[Prompt, Tokens[int] | None, Wanted | None]:
        """The prompt, the dictated reply, and the grammar of any other."""
        if request.raw is not None:
            return self._prompt(request), self._forced(request), None
        check_schemas(self._renderer.dialect, request)
        prompt = self._prompt(request)
        return (
            prompt,
            self._forced(request),
            wanted(
                self.codec,
                self._renderer.dialect,
                request,
                may_call=request.tool_choice != "none" and not prompt.kept_tools,
                thinks=self._renderer.may_think(prompt),
            ),
        )

    def _prompt(self, request: Request) -> Prompt:
        if request.raw is not None:
            n = self.engine.model.vocab_size
            return raw_prompt(self.codec, request.raw, n, self._renderer.length)
        return self._renderer.prompt(request)

    def _may_miss(self, record: TurnRecord) -> bool:
        """Whether more has to be read than is new; all of a new prompt is not read before."""
        return (
            record.prefilled_tokens > max(record.new_tokens, 1)
            or record.new_tokens == record.prompt_tokens
        )

    def _explain(self, prompt: Prompt, record: TurnRecord) -> Miss | None:
        """On the render thread, while the engine reads."""
        if record.prefilled_tokens <= max(record.new_tokens, 1):
            cause = self._renderer.unknown(prompt)
            if cause:
                return Miss(at=0, part="whole prompt", cause=cause)
            return self._renderer.moved(prompt)
        by_cache = max(0, record.prefilled_tokens - record.unseen_tokens)
        by_text = max(0, record.unseen_tokens - record.new_tokens)
        if not by_text and (found := near_scaffold(prompt, record)) is not None:
            return replace(found, by_cache=by_cache)
        found = self._renderer.explain(prompt)
        if found is None or not found.cause:
            found = lost(record, self.settings, found.at if found else None)
        return replace(found, by_text=by_text, by_cache=by_cache)

    def _forced(self, request: Request) -> Tokens[int] | None:
        text = request.forced_reply
        return None if text is None else tokens_of(self.codec.encode(text))

    def _check(self, request: Request) -> None:
        info = self.engine.model
        names_of_no_effect(request.model, info)  # raises for another model's
        # A message takes a token at least, so these are too long whatever they say.
        n = len(request.raw if isinstance(request.raw, tuple) else request.messages)
        if n >= info.context_length:
            raise _too_long(info, f"The prompt has {n:,} messages or token ids")
        if request.sampling.top_k > info.vocab_size:
            raise RequestError(f"top_k may be at most {info.vocab_size:,}.", param="top_k")
        if any(not 0 <= t < info.vocab_size for t in request.sampling.logit_bias):
            raise RequestError(
                f"logit_bias: token ids go from 0 to {info.vocab_size - 1:,}.", param="logit_bias"
            )
        if request.forced_reply is not None and not self.settings.forced_replies:
            raise RequestError(
                "everwarm.reply is for servers started with --forced-replies.",
                param="everwarm.reply",
            )

    def _job(self, request: Request, prompt: Prompt, turn_id: str) -> Job:
        info, room = self.engine.model, self._room(len(prompt.tokens))
        sampling = request.sampling
        if sampling.top_k >= info.vocab_size:
            sampling = replace(sampling, top_k=0)
        if request.tool_choice == "none" or prompt.kept_tools:
            sampling = replace(sampling, logit_bias={**sampling.logit_bias, **self._no_calls})
        return Job(
            id=turn_id,
            tokens=prompt.tokens,
            marks=prompt.marks if request.samples == 1 else fork_marks(prompt),
            sampling=sampling,
            max_tokens=room if request.max_tokens is None else min(request.max_tokens, room),
            logprobs=request.logprobs,
            namespace=request.namespace,
            markers=self._markers(request, prompt),
            thinking_budget=self.settings.thinking_budget
            if request.thinking_budget is None
            else request.thinking_budget,
        )

    def _room(self, n: int) -> int:
        """Tokens of a reply that fit behind `n`. Raises TooLong where none do."""
        info = self.engine.model
        if n >= info.context_length:
            raise _too_long(info, f"The prompt has {n:,} tokens")
        return info.context_length - n

    def _markers(self, request: Request, prompt: Prompt) -> Markers | None:
        """Where the reply's reasoning stands; a model without any keeps every budget."""
        known = self._renderer.markers
        if known is None or request.raw is not None:
            return None
        return replace(known, in_reasoning=prompt.opens_reasoning)

    def _file(self, record: TurnRecord) -> None:
        self.records.appendleft(record)
        self.totals.add(record)
        log.info(log_line(record))


def _too_long(info: ModelInfo, fact: str) -> TooLong:
    return TooLong(f"{fact}; '{info.id}' reads {info.context_length:,} with the reply. Shorten it.")
