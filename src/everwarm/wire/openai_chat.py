"""OpenAI's chat completions: a body becomes a `Request`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from everwarm.errors import RequestError
from everwarm.request import Request, Tool
from everwarm.wire import body as wb
from everwarm.wire import constraints
from everwarm.wire.extensions import (
    Budget,
    Effort,
    Everwarm,
    TemplateArgs,
    first_budget,
    history_mode,
    template_args,
)
from everwarm.wire.fields import Hint, Noted, Refused, WireObject
from everwarm.wire.format import ParsedRequest
from everwarm.wire.hosted_tools import HOSTED, HostedTool, check_choice, ignored_of, tag_by_type
from everwarm.wire.openai_chat_messages import TAGS, AnyMessage
from everwarm.wire.openai_chat_stream import Encoder
from everwarm.wire.sampling_fields import SamplingFields, sampling_of


class _Function(WireObject):
    name: wb.Name
    description: str = ""
    parameters: wb.JsonObject | None = None
    strict: bool = False


class _ChatTool(WireObject):
    type: Literal["function"]
    function: _Function


_AnyTool = Annotated[
    Annotated[_ChatTool, Tag("function_tool")] | Annotated[HostedTool, Tag(HOSTED)],
    Discriminator(tag_by_type({"function"})),
]


class _RouterReasoning(WireObject):
    """How hard to think, as one router of requests spells it."""

    effort: Annotated[Effort | None, Hint()] = None
    enabled: bool | None = None
    max_tokens: Budget | None = None


class _ProviderThinking(WireObject):
    """Whether to think, as some providers of chat completions spell it."""

    type: Literal["enabled", "disabled", "adaptive", "auto"]
    budget_tokens: Budget | None = None


class Body(SamplingFields):
    model: wb.ModelName | None = None
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
    reasoning: _RouterReasoning = _RouterReasoning()
    thinking: _ProviderThinking | None = None
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


def parse(body: bytes, namespace: str = "") -> ParsedRequest:
    """Read a body. Raises RequestError with the path of the first field that is wrong."""
    b = wb.read(body, Body, tags=TAGS)
    choice, named = constraints.tool_choice_of(b.tool_choice)
    check_choice(b.tools, named, forced=choice == "required")
    functions = (t.function for t in b.tools if isinstance(t, _ChatTool))
    request = Request(
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
        ignored=ignored_of(b, b.tools),
    )
    encoder = partial(Encoder, include_usage=b.stream_options.include_usage)
    session = wb.session_name(b.prompt_cache_key)
    return ParsedRequest(request, b.stream, encoder, session=session)


def _template_args(b: Body) -> dict[str, Any]:
    """What goes to the template: a field of its own wins over one that other providers have."""
    effort = b.reasoning_effort or b.reasoning.effort
    switches = (b.enable_thinking, _thinks(b.thinking), b.reasoning.enabled)
    switch = next((s for s in switches if s is not None), None)
    args = {} if switch is None else {"enable_thinking": switch}
    return args | template_args(effort, b.chat_template_kwargs)


def _thinks(thinking: _ProviderThinking | None) -> bool | None:
    return {"enabled": True, "disabled": False}.get(thinking.type) if thinking else None


def _max_tokens(b: Body) -> int | None:
    if b.max_tokens is None or b.max_completion_tokens in (None, b.max_tokens):
        return b.max_tokens or b.max_completion_tokens
    raise RequestError("max_tokens and max_completion_tokens differ: send one.", param="max_tokens")


def _logprobs(b: Body) -> int | None:
    if b.top_logprobs and not b.logprobs:
        raise RequestError("top_logprobs needs logprobs: true.", param="top_logprobs")
    return b.top_logprobs or 0 if b.logprobs else None
