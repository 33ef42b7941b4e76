"""Anthropic's messages: a body becomes a `Request`. The answer is spelled in `anthropic_stream.py`.

Nothing is ignored in silence: a field that is not known here is refused by its path. Fields in
`NO_EFFECT`, and `cache_control` wherever it stands, are accepted, since an answer is right without
them: everything is cached. A refusal never repeats input.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, PrivateAttr, WrapValidator

from everwarm.errors import RequestError
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall
from everwarm.request import Request, Tool
from everwarm.wire import body as wb
from everwarm.wire import held
from everwarm.wire.anthropic_stream import Encoder
from everwarm.wire.extensions import Everwarm, first_budget
from everwarm.wire.fields import Hint, Noted, Refused, WireObject, ignored_in
from everwarm.wire.format import Asked
from everwarm.wire.once import Once
from everwarm.wire.sealed import Seals

BILLING = "x-anthropic-billing-header:"
"""A system block that begins so is a client's bookkeeping, different in every session."""


class _Block(WireObject):
    cache_control: wb.Cached = None


class _Text(_Block):
    type: Literal["text"]
    text: str
    citations: wb.Afterwards = None


class _Image(_Block):
    type: Literal["image"]
    source: Any = None


class _Document(_Block):
    type: Literal["document"]
    source: dict[str, Any]
    title: str | None = None
    context: str | None = None
    citations: Any = None


class _Thinking(_Block):
    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class _Redacted(_Block):
    type: Literal["redacted_thinking"]
    data: str


class _ToolUse(_Block):
    type: Literal["tool_use"]
    id: wb.NonEmpty
    name: wb.Name
    input: wb.Json
    caller: wb.Afterwards = None


class _Reference(_Block):
    type: Literal["tool_reference"]
    tool_name: wb.Name


def _blocks_of(value: object) -> object:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


_Shown = Annotated[_Text | _Image | _Document | _Reference, Field(discriminator="type")]


class _ToolResult(_Block):
    type: Literal["tool_result"]
    tool_use_id: wb.NonEmpty
    content: Annotated[
        wb.Many[_Shown], BeforeValidator(_blocks_of, json_schema_input_type=str | list[_Shown])
    ] = []
    is_error: bool = False


_AnyBlock = Annotated[
    _Text | _Image | _Document | _Thinking | _Redacted | _ToolUse | _ToolResult | _Reference,
    Field(discriminator="type"),
]
_TAGS = frozenset(
    {"text", "image", "document", "thinking", "redacted_thinking", "tool_use"}
    | {"tool_reference", "tool_result"}
)


class _Message(WireObject):
    role: Literal["user", "assistant", "system"]
    content: Annotated[
        wb.Many[_AnyBlock],
        BeforeValidator(_blocks_of, json_schema_input_type=str | list[_AnyBlock]),
    ]
    _made: list[Message] = PrivateAttr(default_factory=list)

    def made(self, path: str, tools: dict[str, _Tool], seals: Seals) -> list[Message]:
        """The same objects at every turn, where no tool is shown in it: those may change. What a
        seal held is not kept: it may be much more than the message."""
        if self._made:
            return self._made
        before = seals.n_opened
        if self.role == "assistant":
            made = _assistant(self, path, seals)
        else:
            made = _other(self, path, tools)
        self._made = [] if seals.n_opened > before or _refers(self.content) else made
        return made


def _ours(kind: object) -> object:
    if isinstance(kind, str) and kind != "custom":
        raise ValueError("must be 'custom': tools that Anthropic defines or runs are not here")
    return kind


class _Tool(WireObject):
    type: Annotated[Literal["custom"], BeforeValidator(_ours)] = "custom"
    name: wb.Name
    description: str = ""
    input_schema: wb.Json
    cache_control: wb.Cached = None
    defer_loading: bool = False
    strict: bool = False
    input_examples: Annotated[Any, Noted("chat templates have no place for them")] = None
    allowed_callers: Annotated[Any, Noted("the model is the only one that calls")] = None
    eager_input_streaming: Annotated[Any, Noted("arguments are streamed as they come")] = None


class _ToolChoice(WireObject):
    type: Literal["auto", "any", "tool", "none"]
    name: wb.Name | None = None
    disable_parallel_tool_use: bool = False


class _ThinkingConfig(WireObject):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    display: Annotated[Literal["summarized", "omitted"], Hint()] = "summarized"


class _OutputConfig(WireObject):
    effort: wb.Effort | None = None
    format: held.FlatFormat | None = None


class _Counted(WireObject):
    model: Annotated[str, Field(max_length=1024)] | None = None
    messages: Annotated[wb.Many[Annotated[_Message, WrapValidator(Once())]], Field(min_length=1)]
    system: Annotated[
        wb.Many[_Text], BeforeValidator(_blocks_of, json_schema_input_type=str | list[_Text])
    ] = []
    tools: Annotated[wb.Many[_Tool], Field(max_length=1024)] = []
    tool_choice: _ToolChoice = _ToolChoice(type="auto")
    thinking: _ThinkingConfig | None = None
    output_config: _OutputConfig = _OutputConfig()
    output_format: held.FlatFormat | None = None  # what `output_config.format` was called before
    context_management: Annotated[Any, Noted("nothing is cut from a history here")] = None
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
    container: Annotated[Any, Refused("Nothing here runs code: leave it out.")] = None
    mcp_servers: Annotated[Any, Refused("Call them yourself, and send their tools.")] = None
    safeguards: Annotated[Any, Noted("nothing here classifies what a tool would do")] = None


class _Body(_Counted):
    max_tokens: Annotated[int, Field(ge=0, le=2**53)]
    stop_sequences: wb.Texts = []
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, lt=2**31)] = 0
    stream: bool = False
    fallbacks: Annotated[Any, Noted("there is one model here, and it declines nothing")] = None
    fallback_credit_token: wb.Books = None
    compaction: Annotated[Any, Refused("Ask for a summary in a message of your own.")] = None
    thread: Annotated[Any, Refused("Send the whole conversation: it stays warm.")] = None
    everwarm: Everwarm = Everwarm()


def parse(body: bytes, namespace: str = "") -> Asked:
    """Read a body. Raises RequestError with the path of the first field that is wrong.

    `max_tokens` 0 is honoured: the prompt is read and kept, nothing is written.
    """
    b = wb.read(body, _Body, tags=_TAGS)
    if b.messages[-1].role == "assistant":
        raise RequestError(
            f"messages.{len(b.messages) - 1}: the last message is the assistant's; a reply that "
            "continues it is not supported. End with a user message.",
            param="messages",
        )
    choice, named = _chosen(b.tool_choice)
    request = Request(
        model=b.model,
        messages=_messages(b),
        tools=tuple(_tool(t) for t in b.tools if not t.defer_loading),
        deferred=tuple(_tool(t) for t in b.tools if t.defer_loading),
        tool_choice=choice,
        named_tool=named,
        parallel_calls=not b.tool_choice.disable_parallel_tool_use,
        shape=held.flat_shape(b.output_config.format, "output_config.format")
        or held.flat_shape(b.output_format, "output_format"),
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
        ignored=ignored_in(b),
    )
    hides = b.thinking is not None and b.thinking.display == "omitted"
    return Asked(request, b.stream, partial(Encoder, hides_thinking=hides))


def parse_count(body: bytes) -> Request:
    """Read a body of `count_tokens`: the same without what only an answer needs."""
    b = wb.read(body, _Counted, tags=_TAGS)
    tools = tuple(_tool(t) for t in b.tools if not t.defer_loading)
    return Request(
        b.model, _messages(b), tools, template_args=_template_args(b), ignored=ignored_in(b)
    )


def _template_args(b: _Counted) -> dict[str, Any]:
    args = wb.effort_args(b.output_config.effort)
    if b.thinking is None or b.thinking.type == "adaptive":
        return args
    return args | {"enable_thinking": b.thinking.type == "enabled"}


def _chosen(choice: _ToolChoice) -> tuple[Literal["none", "auto", "required"], str | None]:
    if choice.type == "tool" and choice.name is None:
        raise RequestError("tool_choice.name is required.", param="tool_choice.name")
    if choice.type == "auto" or choice.type == "none":
        return choice.type, None
    return "required", choice.name if choice.type == "tool" else None


def _tool(t: _Tool) -> Tool:
    return Tool(t.name, t.description, t.input_schema, t.strict)


def _messages(b: _Counted) -> tuple[Message, ...]:
    out: list[Message] = []
    system = tuple(Text(p.text) for p in b.system if p.text and not p.text.startswith(BILLING))
    if system:
        out.append(Message("system", system))
    tools, seals = {t.name: t for t in b.tools}, Seals()
    for n, m in enumerate(b.messages):
        out += m.made(f"messages.{n}.content", tools, seals)
    return tuple(out)


def _refers(blocks: Iterable[object]) -> bool:
    """Whether a tool is shown in these blocks by its name."""
    return any(
        isinstance(p, _Reference) or (isinstance(p, _ToolResult) and _refers(p.content))
        for p in blocks
    )


def _assistant(m: _Message, path: str, seals: Seals) -> list[Message]:
    parts: list[Part] = []
    for i, p in enumerate(m.content):
        match p:
            case _Text():
                parts += [Text(p.text)] if p.text else []
            case _Thinking():
                thought = p.thinking or seals.unseal(p.signature)
                parts += [Reasoning(thought)] if thought else []
            case _Redacted():
                thought = seals.unseal(p.data)
                parts += [Reasoning(thought)] if thought else []
            case _ToolUse():
                parts.append(ToolCall(p.id, p.name, orjson.dumps(p.input).decode()))
            case _:
                raise _misplaced(f"{path}.{i}", p.type, m.role)
    return [Message("assistant", tuple(parts))]


def _other(m: _Message, path: str, tools: dict[str, _Tool]) -> list[Message]:
    """Tool results first, in the order in which they came, then what the user says."""
    results: list[Message] = []
    texts: list[Part] = []
    for i, p in enumerate(m.content):
        here = f"{path}.{i}"
        match p:
            case _ToolResult() if m.role == "user":
                shown = _shown(p.content, f"{here}.content", tools)
                if p.is_error:
                    shown = [Text("Error: "), *shown]
                results.append(Message("tool", tuple(shown), tool_call_id=p.tool_use_id))
            case _Text() | _Image() | _Document() | _Reference():
                texts += _shown([p], here, tools, single=True)
            case _:
                raise _misplaced(here, p.type, m.role)
    said = [Message("system" if m.role == "system" else "user", tuple(texts))]
    return [*results, *(said if texts or not results else [])]


def _shown(
    blocks: Iterable[_Text | _Image | _Document | _Reference],
    path: str,
    tools: dict[str, _Tool],
    *,
    single: bool = False,
) -> list[Text]:
    out: list[Text] = []
    for i, p in enumerate(blocks):
        here = path if single else f"{path}.{i}"
        match p:
            case _Text():
                out += [Text(p.text)] if p.text else []
            case _Reference():
                out.append(Text(_described(p.tool_name, tools)))
            case _Document():
                out.append(Text(_document(p, here)))
            case _Image():
                raise RequestError(
                    f"{here}: images cannot be read by this model; send text.", param=here
                )
    return out


def _document(p: _Document, path: str) -> str:
    data = p.source.get("data")
    if p.source.get("type") != "text" or not isinstance(data, str):
        raise RequestError(
            f"{path}.source: only plain text documents can be read by this model.",
            param=f"{path}.source",
        )
    return "\n".join(t for t in (p.title, p.context, data) if t)


def _described(name: str, tools: dict[str, _Tool]) -> str:
    """A tool that was not at the head of the prompt, shown where it is referred to."""
    tool = tools.get(name)
    if tool is None:
        return name
    function = {
        "name": name,
        "description": tool.description,
        "parameters": tool.input_schema,
    }
    return orjson.dumps({"type": "function", "function": function}).decode()


def _misplaced(path: str, kind: str, role: str) -> RequestError:
    return RequestError(f"{path}: {kind} does not belong in a message of {role}.", param=path)
