"""OpenAI's responses: a body becomes a `Request`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from everwarm.messages import Message, Text
from everwarm.request import Request
from everwarm.wire import body as wb
from everwarm.wire import constraints
from everwarm.wire.extensions import Effort, Everwarm, template_args
from everwarm.wire.fields import Hint, Noted, Refused, WireObject
from everwarm.wire.format import ParsedRequest
from everwarm.wire.hosted_tools import check_choice, ignored_of
from everwarm.wire.openai_responses_messages import TAGS, Items, conversation, items_of, read_item
from everwarm.wire.openai_responses_stream import Encoder
from everwarm.wire.openai_responses_tools import TOOL_TAGS, AnyTool, named_tools
from everwarm.wire.stored_items import Lookup, StoredItems, stored_input

_Summary = Annotated[Literal["auto", "concise", "detailed"] | None, Hint()]


class _ReasoningConfig(WireObject):
    effort: Annotated[Effort | None, Hint()] = None
    summary: _Summary = None
    generate_summary: _Summary = None
    context: Annotated[Any, Noted("reasoning stays where the model read it")] = None
    mode: wb.Untrained = None


class _TextConfig(WireObject):
    format: constraints.FlatFormat | None = None
    verbosity: wb.Untrained = None


class Body(WireObject):
    model: wb.ModelName | None = None
    input: Annotated[
        Items,
        Field(min_length=1),
        BeforeValidator(
            items_of, json_schema_input_type=str | Annotated[Items, Field(min_length=1)]
        ),
    ]
    instructions: str = ""
    tools: Annotated[wb.Many[AnyTool], Field(max_length=1024)] = []
    tool_choice: constraints.Choice = constraints.AUTO
    parallel_tool_calls: bool = True
    reasoning: _ReasoningConfig = _ReasoningConfig()
    text: _TextConfig = _TextConfig()
    include: wb.Many[str] = []
    previous_response_id: wb.NonEmpty | None = None
    store: bool = True
    stream: bool = False
    background: Annotated[Any, Refused("Leave it out, and stream the answer.")] = False
    truncation: Annotated[Literal["disabled"], Hint()] = "disabled"
    max_output_tokens: wb.Count | None = None
    temperature: wb.Temperature = 1.0
    top_p: wb.TopP = 1.0
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    metadata: Annotated[dict[str, str], Field(fail_fast=True)] = {}
    everwarm: Everwarm = Everwarm()
    prompt_cache_key: Any = None  # tells conversations apart
    prompt_cache_retention: wb.Cached = None
    prompt_cache_options: wb.Cached = None
    user: wb.Books = None
    safety_identifier: wb.Books = None
    service_tier: wb.Books = None
    client_metadata: wb.Books = None
    background_options: Annotated[Any, Noted("background is refused")] = None
    access_programs: wb.Books = None
    image: Annotated[Any, Noted("images are refused")] = None
    conversation: Annotated[Any, Refused("Send previous_response_id, or all messages.")] = None
    prompt: Annotated[Any, Refused("No prompts are kept here: send its text.")] = None
    context_management: Annotated[
        Any, Refused("Nothing is cut from a conversation here: compact it yourself.")
    ] = None
    moderation: wb.Moderation = None
    max_tool_calls: Annotated[Any, Noted("it counts calls of tools that OpenAI runs")] = None
    stream_options: Annotated[Any, Noted("nothing obfuscates a stream here")] = None


_INCLUDES = frozenset({"message.output_text.logprobs", "reasoning.encrypted_content"})


def parse(body: bytes, namespace: str = "", stored: StoredItems | None = None) -> ParsedRequest:
    """Read a body. Raises RequestError with the path of the first field that is wrong.

    `stored`: finds the stored responses and items that the body refers to.
    """
    b = wb.read(body, Body, tags=TAGS | TOOL_TAGS)
    lookup = Lookup(stored, namespace, read_item)
    items = lookup.conversation(b.previous_response_id, b.input)
    tools, names = named_tools(b.tools)
    choice, named = constraints.tool_choice_of(b.tool_choice)
    check_choice(b.tools, named, forced=choice == "required")
    wants_logprobs = b.top_logprobs is not None or "message.output_text.logprobs" in b.include
    own = (Message("system", (Text(b.instructions),)),) if b.instructions else ()
    request = Request(
        model=b.model,
        messages=(*own, *conversation(items, names)),
        tools=tools,
        tool_choice=choice,
        named_tool=next((shown for shown, n in names.items() if n.name == named), named),
        parallel_calls=b.parallel_tool_calls,
        shape=constraints.flat_shape(b.text.format, "text.format"),
        sampling=wb.sampling(b.temperature, b.top_p),
        max_tokens=b.max_output_tokens,
        logprobs=b.top_logprobs or 0 if wants_logprobs else None,
        template_args=template_args(b.reasoning.effort),
        namespace=namespace,
        history=b.everwarm.history,
        thinking_budget=b.everwarm.thinking_budget,
        forced_reply=b.everwarm.reply,
        ignored=ignored_of(b, b.tools, *_unknown_includes(b)),
    )
    encoder = partial(
        Encoder,
        echo=_echo(b),
        names=names,
        summarizes=bool(b.reasoning.summary or b.reasoning.generate_summary),
        seals="reasoning.encrypted_content" in b.include,
    )
    return ParsedRequest(
        request,
        b.stream,
        encoder,
        stored_input=stored_input(items) if b.store else None,
        session=wb.session_name(b.prompt_cache_key),
    )


def _unknown_includes(b: Body) -> list[str]:
    return ["include[]"] if set(b.include) - _INCLUDES else []


def _echo(b: Body) -> dict[str, Any]:
    """The fields of the request that its response repeats."""
    fields = {"instructions", "tools", "store", "truncation", "max_output_tokens"}
    fields |= {"temperature", "top_p", "metadata", "previous_response_id", "background"}
    echo = b.model_dump(include=fields, exclude={"tools"})
    return {
        **echo,
        "instructions": b.instructions or None,
        "tools": [t.model_dump(exclude_unset=True) for t in b.tools],
        "tool_choice": _choice_of(b),
        "parallel_tool_calls": b.parallel_tool_calls,
        "reasoning": {"effort": b.reasoning.effort, "summary": b.reasoning.summary},
        "text": {"format": _format_of(b)},
    }


def _choice_of(b: Body) -> object:
    choice = b.tool_choice
    return choice.model_dump(exclude_none=True) if choice.name else choice.type


def _format_of(b: Body) -> dict[str, Any]:
    if b.text.format is None:
        return {"type": "text"}
    return b.text.format.model_dump(exclude_unset=True, by_alias=True)
