"""OpenAI's chat completions: a body becomes a `Request`, events become chunks or one response.

Streamed and unstreamed answers are made of the same events by the same `Encoder`.

Nothing is ignored in silence: a field that is not known here is refused by its path, as is a value
that cannot be honoured. Two exceptions: `null` is the same as absent, everywhere; and the fields in
`NO_EFFECT` are accepted, since an answer is right without them. A refusal never repeats input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WrapValidator

from everwarm import events as ev
from everwarm.errors import RequestError
from everwarm.events import Event, TokenLogprob, TurnRecord
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall
from everwarm.request import Request, Sampling, Tool
from everwarm.wire import body as wb
from everwarm.wire import held
from everwarm.wire.extensions import (
    Budget,
    Effort,
    Everwarm,
    TemplateArgs,
    first_budget,
    history_mode,
    template_args,
)
from everwarm.wire.once import Once
from everwarm.wire.strict import StrictObject as _Object

NO_EFFECT = frozenset(
    {"user", "safety_identifier", "metadata", "store", "service_tier"}  # for OpenAI's own books
    | {"verbosity"}  # a hint
)
"""Fields of the body that are accepted and change nothing."""

LEAST_LOGPROB = -9999.0
"""How OpenAI spells a probability of nothing; JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A parsed body: what is asked, and how the answer is to be sent."""

    request: Request
    stream: bool
    include_usage: bool
    session: str | None = None


def _parts_of(value: object) -> object:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class _TextPart(_Object):
    type: Literal["text"]
    text: str
    cache_control: Any = None  # a hint to cache: everything is cached


def _readable(part: object) -> object:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_audio", "video_url", "file"):
        what = kind.removesuffix("_url").removeprefix("input_")
        raise ValueError(f"{what} cannot be read by this model; send text")
    return part


_Part = Annotated[_TextPart, BeforeValidator(_readable)]
_Content = Annotated[
    wb.Many[_Part], BeforeValidator(_parts_of, json_schema_input_type=str | list[_Part])
]


class _CalledFunction(_Object):
    name: wb.Name
    arguments: str


class _Call(_Object):
    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction
    index: int | None = None  # clients that join chunks send it back


def _texts(content: Iterable[_TextPart]) -> tuple[Part, ...]:
    return tuple(Text(p.text) for p in content if p.text)


class _PlainMessage(_Object):
    role: Literal["system", "developer", "user"]
    content: _Content

    @cached_property
    def message(self) -> Message:
        """The same object at every turn: what is worked out of it once stays."""
        return Message("user" if self.role == "user" else "system", _texts(self.content))


class _AssistantMessage(_Object):
    role: Literal["assistant"]
    content: _Content = []
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: wb.Many[_Call] = []

    @cached_property
    def message(self) -> Message:
        """As of a plain message."""
        thought = self.reasoning_content or self.reasoning
        thoughts = (Reasoning(thought),) if thought else ()
        calls = (ToolCall(c.id, c.function.name, c.function.arguments) for c in self.tool_calls)
        return Message("assistant", (*thoughts, *_texts(self.content), *calls))


class _ToolMessage(_Object):
    role: Literal["tool"]
    content: _Content
    tool_call_id: wb.NonEmpty
    name: str | None = None  # the call is known by its id

    @cached_property
    def message(self) -> Message:
        """As of a plain message."""
        return Message("tool", _texts(self.content), tool_call_id=self.tool_call_id)


_AnyMessage = Annotated[
    Annotated[_PlainMessage | _AssistantMessage | _ToolMessage, Field(discriminator="role")],
    WrapValidator(Once()),
]


class _Function(_Object):
    name: wb.Name
    description: str = ""
    parameters: wb.Json | None = None
    strict: bool = False


class _Tool(_Object):
    type: Literal["function"]
    function: _Function


_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class _Body(_Object):
    model: Annotated[str, Field(max_length=1024)] | None = None
    messages: Annotated[wb.Many[_AnyMessage], Field(min_length=1)]
    tools: Annotated[wb.Many[_Tool], Field(max_length=1024)] = []
    tool_choice: held.Choice = held.AUTO
    parallel_tool_calls: bool = True
    stop: wb.Texts = []
    seed: wb.Seed | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0  # OpenAI's default
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, lt=2**31)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    repetition_context_size: Annotated[int, Field(ge=1, le=2**20)] = 20
    presence_penalty: wb.Penalty = 0.0
    frequency_penalty: wb.Penalty = 0.0
    logit_bias: wb.Bias = {}
    max_tokens: wb.Count | None = None
    max_completion_tokens: wb.Count | None = None
    n: wb.Samples = 1
    modalities: wb.Many[Literal["text"]] = ["text"]
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool = False
    stream_options: wb.StreamOptions = wb.StreamOptions()
    chat_template_kwargs: TemplateArgs = TemplateArgs()
    reasoning_effort: Effort | None = None
    enable_thinking: bool | None = None
    thinking_budget: Budget | None = None
    response_format: held.ChatFormat | None = None
    everwarm: Everwarm = Everwarm()
    prompt_cache_key: Any = None  # tells conversations apart; what is cached does not depend on it


def parse(body: bytes, *, namespace: str = "") -> ChatBody:
    """Read a body. Raises RequestError with the path of the first field that is wrong."""
    b = wb.read(body, _Body, no_effect=NO_EFFECT, tags=_ROLES)
    name = wb.session_name(b.prompt_cache_key)
    return ChatBody(_request(b, namespace), b.stream, b.stream_options.include_usage, name)


def _request(b: _Body, namespace: str) -> Request:
    choice, named = held.chosen(b.tool_choice)
    return Request(
        model=b.model,
        messages=tuple(m.message for m in b.messages),
        tools=tuple(
            Tool(f.name, f.description, f.parameters, f.strict)
            for f in (t.function for t in b.tools)
        ),
        tool_choice=choice,
        named_tool=named,
        parallel_calls=b.parallel_tool_calls,
        shape=held.chat_shape(b.response_format),
        sampling=_sampling(b),
        max_tokens=_max_tokens(b),
        stop=tuple(b.stop),
        logprobs=_logprobs(b),
        template_args=_template_args(b),
        thinking_budget=first_budget(
            b.thinking_budget, b.chat_template_kwargs.thinking_budget, b.everwarm.thinking_budget
        ),
        namespace=namespace,
        history=history_mode(b.everwarm, b.chat_template_kwargs),
        forced_reply=b.everwarm.reply,
        samples=b.n,
    )


def _template_args(b: _Body) -> Mapping[str, Any]:
    switch = {} if b.enable_thinking is None else {"enable_thinking": b.enable_thinking}
    return switch | dict(template_args(b.reasoning_effort, b.chat_template_kwargs))


def _sampling(b: _Body) -> Sampling:
    return wb.sampling(
        b.temperature,
        b.top_p,
        top_k=b.top_k,
        min_p=b.min_p,
        repetition_penalty=b.repetition_penalty,
        repetition_context=b.repetition_context_size,
        presence_penalty=b.presence_penalty,
        frequency_penalty=b.frequency_penalty,
        logit_bias=b.logit_bias,
        seed=None if b.seed is None else b.seed % 2**64,
    )


def _max_tokens(b: _Body) -> int | None:
    if b.max_tokens is None or b.max_completion_tokens in (None, b.max_tokens):
        return b.max_tokens or b.max_completion_tokens
    raise RequestError("max_tokens and max_completion_tokens differ: send one.", param="max_tokens")


def _logprobs(b: _Body) -> int | None:
    if b.top_logprobs and not b.logprobs:
        raise RequestError("top_logprobs needs logprobs: true.", param="top_logprobs")
    return b.top_logprobs or 0 if b.logprobs else None


# --- events -> chunks, or one response ---


class Encoder:
    """Says one turn's events in OpenAI's words. Holds no state between calls.

    `id`, `model` and `created` (unix seconds) stand in everything that it makes.
    """

    def __init__(self, id: str, model: str, created: int, *, include_usage: bool) -> None:
        self._head = {"id": id, "created": created, "model": model}
        self._include_usage = include_usage

    def chunks(self, event: Event) -> list[dict[str, Any]]:
        """The chunks that an event becomes: mostly one, two at the end, none for `Progress`."""
        match event:
            case ev.Started():
                return [self._chunk({"role": "assistant", "content": ""})]
            case ev.TextDelta("", ()) | ev.ReasoningDelta("") | ev.Progress() | ev.CallEnd():
                return []
            case ev.TextDelta(text, logprobs):
                return [self._chunk({"content": text}, logprobs=logprobs)]
            case ev.ReasoningDelta(text):
                return [self._chunk({"reasoning_content": text})]
            case ev.CallStart(index, id, name):
                return [self._chunk({"tool_calls": [{"index": index, **_call(id, name, "")}]})]
            case ev.CallDelta(index, arguments):
                call = {"index": index, "function": {"arguments": arguments}}
                return [self._chunk({"tool_calls": [call]})]
            case ev.Finished(reason, record):
                last = [self._chunk({}, finish_reason=reason)]
                if self._include_usage:
                    last.append(self._object([], {"usage": _usage(record)}))
                return last

    def keepalive(self) -> dict[str, Any]:
        """A chunk that says nothing: the connection and the answer are still alive."""
        return self._chunk({})

    def fold(self, events: Iterable[Event]) -> dict[str, Any]:
        """Make the one response of a whole turn's events, which end with `Finished`."""
        texts: list[str] = []
        thoughts: list[str] = []
        logprobs: list[TokenLogprob] = []
        calls: list[tuple[str, str, list[str]]] = []
        end: ev.Finished | None = None
        for event in events:
            match event:
                case ev.TextDelta(text, some):
                    texts.append(text)
                    logprobs.extend(some)
                case ev.ReasoningDelta(text):
                    thoughts.append(text)
                case ev.CallStart(_, id, name):
                    calls.append((id, name, []))
                case ev.CallDelta(index, arguments):
                    calls[index][2].append(arguments)
                case ev.Finished():
                    end = event
        assert end is not None, "a turn ends with Finished or an exception"
        said = "".join(texts)
        message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
        if calls:
            message["content"] = said or None
            message["tool_calls"] = [_call(id, name, "".join(a)) for id, name, a in calls]
        if any(thoughts):
            message["reasoning_content"] = "".join(thoughts)
        choice = _choice({"message": message}, logprobs, end.reason)
        usage = {"usage": _usage(end.record)}
        return {**self._head, "object": "chat.completion", "choices": [choice], **usage}

    def _chunk(
        self,
        delta: dict[str, Any],
        logprobs: Iterable[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = _choice({"delta": delta}, logprobs, finish_reason)
        return self._object([choice], {"usage": None} if self._include_usage else {})

    def _object(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}


def _choice(
    said: dict[str, Any], logprobs: Iterable[TokenLogprob], finish_reason: str | None
) -> dict[str, Any]:
    shown = _logprobs_of(logprobs)
    if finish_reason == "cancelled":  # by somebody else: OpenAI has no word for it
        finish_reason = "stop"
    return {"index": 0, **said, "logprobs": shown, "finish_reason": finish_reason}


def _call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _logprobs_of(tokens: Iterable[TokenLogprob]) -> dict[str, Any] | None:
    content = [
        _token(t.text, t.logprob) | {"top_logprobs": [_token(text, lp) for _, text, lp in t.top]}
        for t in tokens
    ]
    return {"content": content, "refusal": None} if content else None


def _token(text: str, logprob: float) -> dict[str, Any]:
    spelled = list(text.encode("utf-8", "replace"))
    shown = logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB  # also where it is no number
    return {"token": text, "logprob": shown, "bytes": spelled}


def _usage(record: TurnRecord) -> dict[str, Any]:
    return {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "total_tokens": record.prompt_tokens + record.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": record.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": record.reasoning_tokens},
    }
