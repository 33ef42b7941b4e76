"""Anthropic's messages: a body becomes a `Request`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WrapValidator

from everwarm.errors import RequestError
from everwarm.messages import Message
from everwarm.request import Request, Tool
from everwarm.wire import body as wb
from everwarm.wire import constraints
from everwarm.wire.anthropic_messages import TAGS, AnyMessage, TextBlock, conversation
from everwarm.wire.anthropic_stream import Encoder
from everwarm.wire.extensions import Effort, Everwarm, first_budget, template_args
from everwarm.wire.fields import Hint, Noted, Refused, WireObject
from everwarm.wire.format import ParsedRequest
from everwarm.wire.hosted_tools import HOSTED, HostedTool, check_choice, ignored_of, tag_by_type
from everwarm.wire.validation_cache import ValidationCache


class _ClientTool(WireObject):
    type: Literal["custom"] = "custom"
    name: wb.Name
    description: str = ""
    input_schema: wb.JsonObject
    cache_control: wb.Cached = None
    defer_loading: bool = False
    strict: bool = False
    input_examples: Annotated[Any, Noted("chat templates have no place for them")] = None
    allowed_callers: Annotated[Any, Noted("the model is the only one that calls")] = None
    eager_input_streaming: Annotated[Any, Noted("a call is told when it is whole")] = None


_AnyTool = Annotated[
    Annotated[_ClientTool, Tag("custom_tool")] | Annotated[HostedTool, Tag(HOSTED)],
    Discriminator(tag_by_type({"custom"}, "custom")),
]


class _AnthropicChoice(WireObject):
    type: Literal["auto", "any", "tool", "none"]
    name: wb.Name | None = None
    disable_parallel_tool_use: bool = False


class _ThinkingConfig(WireObject):
    type: Annotated[Literal["enabled", "disabled", "adaptive"], Hint()] = "adaptive"
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    block_binding: Annotated[Any, Noted("reasoning stays with the reply that it led to")] = None
    display: Annotated[Literal["summarized", "omitted"], Hint()] = "summarized"


class _OutputConfig(WireObject):
    effort: Annotated[Effort | None, Hint()] = None
    format: constraints.FlatFormat | None = None
    task_budget: Annotated[Any, Noted("a hint that no local model is trained for")] = None


def _keeps_all(edit: object) -> object:
    if (
        isinstance(edit, dict)
        and edit.get("type") == "clear_thinking_20251015"
        and edit.get("keep") in ("all", {"type": "all"})
    ):
        return edit
    raise ValueError(
        "is not supported: nothing is cut from a conversation here, since all of it stays warm. "
        "Leave it out, or send the conversation as it is to be read"
    )


class _ContextManagement(WireObject):
    """What is to be cut from the conversation. Only an edit that cuts nothing is supported."""

    edits: wb.Many[Annotated[Any, BeforeValidator(_keeps_all)]] = []


_OneMessage = Annotated[AnyMessage, WrapValidator(ValidationCache())]


class CountBody(WireObject):
    model: wb.ModelName | None = None
    messages: Annotated[wb.Many[_OneMessage], Field(min_length=1)]
    system: Annotated[
        wb.Many[TextBlock],
        BeforeValidator(wb.one_part, json_schema_input_type=str | list[TextBlock]),
    ] = []
    tools: Annotated[wb.Many[_AnyTool], Field(max_length=1024)] = []
    tool_choice: _AnthropicChoice = _AnthropicChoice(type="auto")
    thinking: _ThinkingConfig | None = None
    output_config: _OutputConfig = _OutputConfig()
    output_format: constraints.FlatFormat | None = (
        None  # what `output_config.format` was called before
    )
    context_management: _ContextManagement = _ContextManagement()
    metadata: wb.Books = None
    service_tier: wb.Books = None
    speed: wb.Books = None
    inference_geo: wb.Books = None
    diagnostics: wb.Books = None
    cache_control: wb.Cached = None
    betas: Annotated[Any, Noted("what is here is here without it")] = None
    user_profile_id: wb.Books = None
    workspace_id: wb.Books = None
    billing_policy: wb.Books = None
    compaction: Annotated[Any, Noted("the conversation is counted as it is sent")] = None
    container: Annotated[Any, Refused("Nothing here runs code: leave it out.")] = None
    mcp_servers: Annotated[Any, Refused("Call them yourself, and send their tools.")] = None
    safeguards: Annotated[Any, Noted("nothing here classifies what a tool would do")] = None


class Body(CountBody):
    max_tokens: Annotated[int, Field(ge=0, le=2**53)]
    stop_sequences: wb.Texts = []
    temperature: wb.Temperature = 1.0
    top_p: wb.TopP = 1.0
    top_k: Annotated[int, Field(ge=0, lt=2**31)] = 0
    stream: bool = False
    fallbacks: Annotated[Any, Noted("there is one model here, and it declines nothing")] = None
    fallback_credit_token: wb.Books = None
    compaction: Annotated[Any, Refused("Ask for a summary in a message of your own.")] = None
    thread: Annotated[Any, Refused("Send the whole conversation: it stays warm.")] = None
    everwarm: Everwarm = Everwarm()


def parse(body: bytes, namespace: str = "") -> ParsedRequest:
    """Read a body. Raises RequestError with the path of the first field that is wrong.

    With `max_tokens` 0 the prompt is read and kept warm, and nothing is written.
    """
    b = wb.read(body, Body, tags=TAGS)
    if b.messages[-1].role == "assistant":
        raise RequestError(
            f"messages.{len(b.messages) - 1}: the last message is the assistant's; a reply that "
            "continues it is not supported. End with a user message.",
            param="messages",
        )
    choice, named = _tool_choice_of(b.tool_choice)
    check_choice(b.tools, named, forced=choice == "required")
    tools, deferred = _tools(b)
    request = Request(
        model=b.model,
        messages=_messages(b),
        tools=tools,
        deferred=deferred,
        tool_choice=choice,
        named_tool=named,
        parallel_calls=not b.tool_choice.disable_parallel_tool_use,
        shape=constraints.flat_shape(b.output_config.format, "output_config.format")
        or constraints.flat_shape(b.output_format, "output_format"),
        sampling=wb.sampling(b.temperature, b.top_p, top_k=b.top_k),
        max_tokens=b.max_tokens,
        stop=tuple(b.stop_sequences),
        template_args=_template_args(b),
        namespace=namespace,
        thinking_budget=first_budget(
            b.thinking.budget_tokens if b.thinking else None, b.everwarm.thinking_budget
        ),
        history=b.everwarm.history,
        forced_reply=b.everwarm.reply,
        ignored=ignored_of(b, b.tools),
    )
    hides = b.thinking is not None and b.thinking.display == "omitted"
    return ParsedRequest(request, b.stream, partial(Encoder, hides_thinking=hides))


def parse_count(body: bytes) -> Request:
    """Read a body of `count_tokens`. Raises as `parse` does."""
    b = wb.read(body, CountBody, tags=TAGS)
    tools, _ = _tools(b)
    args = _template_args(b)
    return Request(b.model, _messages(b), tools, template_args=args, ignored=ignored_of(b, b.tools))


def _template_args(b: CountBody) -> dict[str, Any]:
    args = template_args(b.output_config.effort)
    if b.thinking is None or b.thinking.type == "adaptive":
        return args
    return args | {"enable_thinking": b.thinking.type == "enabled"}


def _tool_choice_of(
    choice: _AnthropicChoice,
) -> tuple[Literal["none", "auto", "required"], str | None]:
    if choice.type == "tool" and choice.name is None:
        raise RequestError("tool_choice.name is required.", param="tool_choice.name")
    if choice.type == "auto" or choice.type == "none":
        return choice.type, None
    return "required", choice.name if choice.type == "tool" else None


def _tools(b: CountBody) -> tuple[tuple[Tool, ...], tuple[Tool, ...]]:
    """The tools at the head of the prompt, and the deferred ones, which a message shows."""
    own = [t for t in b.tools if isinstance(t, _ClientTool)]
    head = tuple(_tool(t) for t in own if not t.defer_loading)
    return head, tuple(_tool(t) for t in own if t.defer_loading)


def _tool(t: _ClientTool) -> Tool:
    return Tool(t.name, t.description, t.input_schema, t.strict)


def _messages(b: CountBody) -> tuple[Message, ...]:
    tools = {t.name: _tool(t) for t in b.tools if isinstance(t, _ClientTool)}
    return conversation(b.system, b.messages, tools)
