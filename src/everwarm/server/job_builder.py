"""Makes a request into a prompt, a grammar and a job, or refuses it and says why.

Not here: what runs the job, and what becomes of its output (`turns.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.errors import RequestError, TooLong
from everwarm.job import Grammar, Job, Markers, ModelInfo, Token
from everwarm.prompt.call_ids import new_call_id
from everwarm.prompt.dialects import families
from everwarm.prompt.grammars.reply_grammar import Wanted, check_schemas, wanted
from everwarm.prompt.parse import ReplyParser
from everwarm.prompt.raw_prompt import raw_prompt
from everwarm.prompt.render import Renderer
from everwarm.request import Request
from everwarm.server.model_names import names_of_no_effect
from everwarm.tokens import Prompt, Tokens, fork_marks, tokens_of


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """A request in tokens. `forced`: the reply that it dictates; `wanted`: what any other has to
    be. `begun`: the reply's tokens that are there already, and that `parser` has read."""

    prompt: Prompt
    parser: ReplyParser
    forced: Tokens[int] | None = None
    wanted: Wanted | None = None
    begun: Tokens[int] = field(default_factory=tokens_of)

    @property
    def tokens(self) -> Tokens[int]:
        """All that is read before the next token is drawn."""
        return self.prompt.tokens + self.begun if self.begun else self.prompt.tokens


class HasModel(Protocol):
    """Who knows the model: `job.Engine`."""

    @property
    def model(self) -> ModelInfo: ...


class JobBuilder:
    """Builds the jobs of one model. `rendered` and `prompt` belong to the renderer's thread."""

    def __init__(
        self, engine: HasModel, codec: Codec, settings: Settings, renderer: Renderer
    ) -> None:
        self._engine, self._codec = engine, codec
        self._settings, self._renderer = settings, renderer
        # A call has one of these tokens: never drawn, no call is possible.
        self._no_calls = dict.fromkeys(families.call_tokens(codec), float("-inf"))

    @property
    def _model(self) -> ModelInfo:
        """As it is known by now: an engine that has loaded knows it better than its files say."""
        return self._engine.model

    def check(self, request: Request) -> None:
        """Refuse what can be refused before anything is rendered."""
        model = self._model
        names_of_no_effect(request.model, model)  # raises for another model's
        # A message takes a token at least, so these are too long whatever they say.
        n = len(request.raw if isinstance(request.raw, tuple) else request.messages)
        if n >= model.context_length:
            raise _too_long(model, f"The prompt has {n:,} messages or token ids")
        if request.sampling.top_k > model.vocab_size:
            raise RequestError(f"top_k may be at most {model.vocab_size:,}.", param="top_k")
        if any(not 0 <= t < model.vocab_size for t in request.sampling.logit_bias):
            raise RequestError(
                f"logit_bias: token ids go from 0 to {model.vocab_size - 1:,}.", param="logit_bias"
            )
        if request.forced_reply is not None and not self._settings.forced_replies:
            raise RequestError(
                "everwarm.reply is for servers started with --forced-replies.",
                param="everwarm.reply",
            )

    def rendered(self, request: Request) -> RenderedRequest:
        """All texts of a request as tokens. Raises what `prompt` raises."""
        text = request.forced_reply
        forced = None if text is None else tokens_of(self._codec.encode(text))
        if request.raw is None:
            check_schemas(self._renderer.dialect, request)
        prompt = self.prompt(request)
        parser = self._parser(request, prompt)
        if request.raw is not None:
            return RenderedRequest(prompt, parser, forced)
        if request.continued is not None:
            begun = self._renderer.begun(prompt, request.continued)
            for token in begun:
                parser.feed(Token(token))
            return RenderedRequest(prompt, parser, begun=begun)
        grammar = wanted(
            self._codec,
            self._renderer.dialect,
            request,
            may_call=_may_call(request, prompt),
            thinks=self._renderer.may_think(prompt),
        )
        return RenderedRequest(prompt, parser, forced, grammar)

    def prompt(self, request: Request) -> Prompt:
        """The tokens to read. Raises RequestError where they cannot be made."""
        if request.raw is None:
            return self._renderer.prompt(request)
        return raw_prompt(self._codec, request.raw, self._model.vocab_size, self._renderer.length)

    def job(
        self, turn_id: str, request: Request, rendered: RenderedRequest, grammar: Grammar | None
    ) -> Job:
        """The job of a request, with its compiled grammar. Raises TooLong."""
        prompt, sampling = rendered.prompt, request.sampling
        tokens = rendered.tokens
        room = self.room(len(tokens))
        if sampling.top_k >= self._model.vocab_size:
            sampling = replace(sampling, top_k=0)
        if not _may_call(request, prompt):
            sampling = replace(sampling, logit_bias={**sampling.logit_bias, **self._no_calls})
        budget = request.thinking_budget
        return Job(
            id=turn_id,
            tokens=tokens,
            marks=prompt.marks if request.samples == 1 else fork_marks(prompt),
            sampling=sampling,
            max_tokens=room if request.max_tokens is None else min(request.max_tokens, room),
            logprobs=request.logprobs,
            namespace=request.namespace,
            forced=rendered.forced,
            markers=self._markers(request, rendered),
            thinking_budget=self._settings.thinking_budget if budget is None else budget,
            grammar=grammar,
        )

    def room(self, n: int) -> int:
        """How many tokens of a reply fit behind `n`. Raises TooLong where none do."""
        if n >= self._model.context_length:
            raise _too_long(self._model, f"The prompt has {n:,} tokens")
        return self._model.context_length - n

    def _parser(self, request: Request, prompt: Prompt) -> ReplyParser:
        """What reads the reply to this prompt."""
        return ReplyParser(
            self._codec,
            tools=(*request.tools, *request.deferred),
            tools_allowed=_may_call(request, prompt),
            opens_reasoning=prompt.opens_reasoning,
            stop=request.stop,
            new_call_id=new_call_id,
            raw=request.raw is not None,
        )

    def _markers(self, request: Request, rendered: RenderedRequest) -> Markers | None:
        """Where the reply's reasoning stands; a model without any keeps every budget."""
        known = self._renderer.markers
        if known is None or request.raw is not None:
            return None
        is_open = rendered.prompt.opens_reasoning
        if rendered.begun:
            is_open = rendered.parser.in_reasoning
        return replace(known, in_reasoning=is_open)


def _may_call(request: Request, prompt: Prompt) -> bool:
    return request.tool_choice != "none" and not prompt.kept_tools


def _too_long(model: ModelInfo, fact: str) -> TooLong:
    return TooLong(
        f"{fact}; '{model.id}' reads {model.context_length:,} with the reply. Shorten it."
    )
