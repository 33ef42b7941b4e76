"""The messages of Anthropic's format: blocks of content become messages of ours.

A tool result becomes a message of its own. A tool that is not at the head of the prompt is shown
where a `tool_reference` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BeforeValidator, Field, PrivateAttr

from everwarm.errors import RequestError
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall
from everwarm.request import Tool
from everwarm.wire import body as wb
from everwarm.wire.fields import Noted, Refused, WireObject
from everwarm.wire.seals import Seals

BILLING = "x-anthropic-billing-header:"
"""A system block that begins so is a client's bookkeeping, different in every session: dropped."""
_Toolset = Annotated[Any, Noted("a call is known by its tool's name")]


class _Block(WireObject):
    cache_control: wb.Cached = None


class TextBlock(_Block):
    """Text, of a message or of the system prompt."""

    type: Literal["text"]
    text: str
    citations: wb.Remark = None


class _Image(_Block):
    AS_A_WHOLE: ClassVar = ("refused", "this model reads text")

    type: Literal["image"]
    source: Any = None


class _Citations(WireObject):
    enabled: Annotated[Any, Refused("No answer here cites: leave it out.")] = None


class _Document(_Block):
    type: Literal["document"]
    source: dict[str, Any]
    title: str | None = None
    context: str | None = None
    citations: _Citations | None = None


class _ThinkingBlock(_Block):
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
    input: wb.JsonObject
    caller: wb.Remark = None
    toolset_name: _Toolset = None


class _ToolReference(_Block):
    type: Literal["tool_reference"]
    tool_name: wb.Name


_ResultBlock = Annotated[
    TextBlock | _Image | _Document | _ToolReference, Field(discriminator="type")
]


class _ToolResult(_Block):
    type: Literal["tool_result"]
    tool_use_id: wb.NonEmpty
    content: Annotated[
        wb.Many[_ResultBlock],
        BeforeValidator(wb.one_part, json_schema_input_type=str | list[_ResultBlock]),
    ] = []
    is_error: bool = False
    toolset_name: _Toolset = None


_AnyBlock = Annotated[
    TextBlock
    | _Image
    | _Document
    | _ThinkingBlock
    | _Redacted
    | _ToolUse
    | _ToolResult
    | _ToolReference,
    Field(discriminator="type"),
]
TAGS = frozenset(
    {"text", "image", "document", "thinking", "redacted_thinking", "tool_use"}
    | {"tool_reference", "tool_result", "custom_tool", "hosted_tool"}
)


class AnyMessage(WireObject):
    """One entry of `messages`; a system message may stand anywhere."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[
        wb.Many[_AnyBlock],
        BeforeValidator(wb.one_part, json_schema_input_type=str | list[_AnyBlock]),
    ]
    clear_at: Literal["never", "next_user_message"] = "never"
    output_config: Annotated[Any, Noted("that of the whole request counts")] = None
    _messages: list[Message] = PrivateAttr(default_factory=list)

    def messages(self, path: str, tools: Mapping[str, Tool], seals: Seals) -> list[Message]:
        """The same objects at every turn, so that what is derived from them is reused.

        Not where a tool is shown, which may change, or where a seal was opened, whose text may be
        much larger than this message.
        """
        if self._messages:
            return self._messages
        before = seals.n_opened
        if self.role == "assistant":
            messages = _assistant(self, path, seals)
        else:
            messages = _other(self, path, tools)
        is_fixed = seals.n_opened == before and not _shows_tool(self.content)
        self._messages = messages if is_fixed else []
        return messages


def conversation(
    system: Iterable[TextBlock], messages: Sequence[AnyMessage], tools: Mapping[str, Tool]
) -> tuple[Message, ...]:
    """All messages of a body. Raises RequestError with the path of the first that is wrong."""
    out: list[Message] = []
    head = tuple(Text(p.text) for p in system if p.text and not p.text.startswith(BILLING))
    if head:
        out.append(Message("system", head))
    seals = Seals()
    last = max((n for n, m in enumerate(messages) if m.role == "user"), default=-1)
    for n, m in enumerate(messages):
        if m.clear_at == "never" or n > last:
            out += m.messages(f"messages.{n}.content", tools, seals)
    return tuple(out)


def _shows_tool(blocks: Iterable[object]) -> bool:
    """Whether one of these blocks refers to a tool."""
    return any(
        isinstance(p, _ToolReference) or (isinstance(p, _ToolResult) and _shows_tool(p.content))
        for p in blocks
    )


def _assistant(m: AnyMessage, path: str, seals: Seals) -> list[Message]:
    parts: list[Part] = []
    for i, p in enumerate(m.content):
        match p:
            case TextBlock():
                parts += [Text(p.text)] if p.text else []
            case _ThinkingBlock():
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


def _other(m: AnyMessage, path: str, tools: Mapping[str, Tool]) -> list[Message]:
    """Tool results first, in their order, then the text."""
    results: list[Message] = []
    texts: list[Part] = []
    for i, p in enumerate(m.content):
        here = f"{path}.{i}"
        match p:
            case _ToolResult() if m.role == "user":
                parts = _texts(p.content, f"{here}.content", tools)
                if p.is_error:
                    parts = [Text("Error: "), *parts]
                results.append(Message("tool", tuple(parts), tool_call_id=p.tool_use_id))
            case TextBlock() | _Image() | _Document() | _ToolReference():
                texts += _texts([p], here, tools, single=True)
            case _:
                raise _misplaced(here, p.type, m.role)
    if texts or not results:
        results.append(Message("system" if m.role == "system" else "user", tuple(texts)))
    return results


def _texts(
    blocks: Iterable[TextBlock | _Image | _Document | _ToolReference],
    path: str,
    tools: Mapping[str, Tool],
    *,
    single: bool = False,
) -> list[Text]:
    out: list[Text] = []
    for i, p in enumerate(blocks):
        here = path if single else f"{path}.{i}"
        match p:
            case TextBlock():
                out += [Text(p.text)] if p.text else []
            case _ToolReference():
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


def _described(name: str, tools: Mapping[str, Tool]) -> str:
    """A deferred tool as JSON, or its name where there is none of this name."""
    tool = tools.get(name)
    if tool is None:
        return name
    function = {"name": name, "description": tool.description, "parameters": tool.parameters}
    return orjson.dumps({"type": "function", "function": function}).decode()


def _misplaced(path: str, kind: str, role: str) -> RequestError:
    return RequestError(f"{path}: {kind} does not belong in a message of {role}.", param=path)
