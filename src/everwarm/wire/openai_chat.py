"""OpenAI's chat completions: a body becomes a `Request`, events become chunks or one response.

Streamed and unstreamed answers are made of the same events by the same `Encoder`.

What would change the answer is honoured or refused by its path, all else is noted (`fields.py`).
`null` is the same as absent, everywhere. A refusal never repeats input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from everwarm import events as ev
from everwarm.errors import RequestError
from everwarm.events import Event, TokenLogprob, TurnRecord
from everwarm.request import Request, Tool
from everwarm.wire import body as wb
from everwarm.wire import constraints
from everwarm.wire.chat_messages import TAGS, AnyMessage
from everwarm.wire.extensions import (
    Budget,
    Effort,
    Everwarm,
    TemplateArgs,
    first_budget,
    history_mode,
    template_args,
)
from everwarm.wire.fields import Hint, Noted, Refused, WireObject, bounded, ignored_in
from everwarm.wire.hosted import HOSTED, HostedTool, check_choice, hosted_in, kind_of
from everwarm.wire.sampled import Sampled, sampling_of

LEAST_LOGPROB = -9999.0
"""How OpenAI spells a probability of nothing; JSON has no infinity."""


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A parsed body: what is asked, and how the answer is to be sent."""

    request: Request
    stream: bool
    include_usage: bool
    session: str | None = None


class _Function(WireObject):
    name: wb.Name
    description: str = ""
    parameters: wb.JsonObject | None = None
    strict: bool = False


class _Tool(WireObject):
    type: Literal["function"]
    function: _Function


_AnyTool = Annotated[
    Annotated[_Tool, Tag("function_tool")] | Annotated[HostedTool, Tag(HOSTED)],
    Discriminator(kind_of({"function"})),
]


class _Reasoning(WireObject):
    """How hard to think, as one router of requests spells it."""

    effort: Annotated[Effort | None, Hint()] = None
    enabled: bool | None = None
    max_tokens: Budget | None = None


class _Thinking(WireObject):
    """Whether to think, as some providers of chat completions spell it."""

    type: Literal["enabled", "disabled", "adaptive", "auto"]
    budget_tokens: Budget | None = None


class _Body(Sampled):
    model: Annotated[str, Field(max_length=1024)] | None = None
    messages: Annotated[wb.Many[AnyMessage], Field(min_length=1)]
    tools: Annotated[wb.Many[_AnyTool], Field(max_length=1024)] = []
    tool_choice: constraints.Choice = constraints.AUTO
    parallel_tool_calls: bool = True
    max_tokens: wb.Count | None = None
    max_completion_tokens: wb.Count | None = None
    n: wb.Samples = 1
    modalities: wb.Many[Literal["text"]] = ["text"]
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool = False
    stream_options: wb.StreamOptions = wb.StreamOptions()
    chat_template_kwargs: TemplateArgs = TemplateArgs()
    reasoning_effort: Annotated[Effort | None, Hint()] = None
    reasoning: _Reasoning = _Reasoning()
    thinking: _Thinking | None = None
    enable_thinking: bool | None = None
    thinking_budget: Budget | None = None
    response_format: constraints.ChatFormat | None = None
    everwarm: Everwarm = Everwarm()
    prompt_cache_key: Any = None  # tells conversations apart; what is cached does not depend on it
    prompt_cache_retention: wb.Cached = None
    prompt_cache_options: wb.Cached = None
    prediction: Annotated[Any, Noted("it would only make the answer quicker")] = None
    user: wb.Books = None
    safety_identifier: wb.Books = None
    metadata: wb.Books = None
    store: wb.Books = None
    service_tier: wb.Books = None
    verbosity: wb.Untrained = None
    functions: Annotated[Any, Refused("Send tools instead.")] = None
    function_call: Annotated[Any, Refused("Send tool_choice instead.", passes=("none", "auto"))] = (
        None
    )
    audio: Annotated[Any, Refused("Leave it out: answers are text.")] = None
    moderation: wb.Moderation = None
    web_search_options: Annotated[Any, Refused("Nothing here can search: send a tool.")] = None
    echo: Annotated[Any, Refused("Leave it out: answers hold what is new.")] = None
    continue_final_message: Annotated[Any, Refused("End with a user message.")] = None


def parse(body: bytes, *, namespace: str = "") -> ChatBody:
    """Read a body. Raises RequestError with the path of the first field that is wrong."""
    b = wb.read(body, _Body, tags=TAGS)
    name = wb.session_name(b.prompt_cache_key)
    return ChatBody(_request(b, namespace), b.stream, b.stream_options.include_usage, name)


def _request(b: _Body, namespace: str) -> Request:
    choice, named = constraints.chosen(b.tool_choice)
    check_choice(b.tools, named, forced=choice == "required")
    functions = (t.function for t in b.tools if isinstance(t, _Tool))
    return Request(
        model=b.model,
        messages=tuple(m.message for m in b.messages),
        tools=tuple(Tool(f.name, f.description, f.parameters, f.strict) for f in functions),
        tool_choice=choice,
        named_tool=named,
        parallel_calls=b.parallel_tool_calls,
        shape=constraints.chat_shape(b.response_format),
        sampling=sampling_of(b),
        max_tokens=_max_tokens(b),
        stop=tuple(b.stop),
        logprobs=_logprobs(b),
        template_args=_template_args(b),
        thinking_budget=first_budget(
            b.thinking_budget,
            b.chat_template_kwargs.thinking_budget,
            b.everwarm.thinking_budget,
            b.thinking.budget_tokens if b.thinking else None,
            b.reasoning.max_tokens,
        ),
        namespace=namespace,
        history=history_mode(b.everwarm, b.chat_template_kwargs),
        forced_reply=b.everwarm.reply,
        samples=b.n,
        ignored=bounded((*ignored_in(b), *hosted_in(b.tools))),
    )


def _template_args(b: _Body) -> Mapping[str, Any]:
    """What goes to the template: a field of its own wins over one that other providers have."""
    effort = b.reasoning_effort or b.reasoning.effort
    switches = (b.enable_thinking, _thinks(b.thinking), b.reasoning.enabled)
    switch = next((s for s in switches if s is not None), None)
    args = {} if switch is None else {"enable_thinking": switch}
    return args | dict(template_args(effort, b.chat_template_kwargs))


def _thinks(thinking: _Thinking | None) -> bool | None:
    return {"enabled": True, "disabled": False}.get(thinking.type) if thinking else None


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
