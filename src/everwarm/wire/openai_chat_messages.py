"""The messages of OpenAI's chat completions, also as other providers spell them.

A reply is its text, its reasoning and its calls; what a provider adds (annotations, signatures,
ids) is noted. A refusal is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, WrapValidator

from everwarm.messages import Message, Part, Reasoning, Text, ToolCall
from everwarm.wire import body as wb
from everwarm.wire.fields import Noted, Refused, WireObject
from everwarm.wire.validation_cache import ValidationCache

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
TAGS = ROLES | {"text", "refusal", "thinking", "function_tool", "hosted_tool"}
"""The tags by which the unions of this format choose."""
_MEDIA = frozenset({"image_url", "input_audio", "video_url", "file"})


class _TextPart(WireObject):
    type: Literal["text"]
    text: str
    cache_control: wb.Cached = None
    prompt_cache_breakpoint: wb.Cached = None


class _RefusalPart(WireObject):
    type: Literal["refusal"]
    refusal: str


def _reasoning_of(value: object) -> object:
    """One provider spells reasoning as a list of texts."""
    if isinstance(value, list) and all(isinstance(v, dict) for v in value):
        return "".join(t for v in value if isinstance(t := v.get("text"), str))
    return value


class _ThinkingPart(WireObject):
    type: Literal["thinking"]
    thinking: Annotated[str, BeforeValidator(_reasoning_of)]
    signature: wb.Remark = None
    closed: wb.Remark = None


def _readable(part: object) -> object:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in _MEDIA:
        what = kind.removesuffix("_url").removeprefix("input_")
        raise ValueError(f"{what} cannot be read by this model; send text")
    return part


_ReadPart = Annotated[
    Annotated[_TextPart | _RefusalPart, Field(discriminator="type")], BeforeValidator(_readable)
]
_OwnPart = Annotated[
    Annotated[_TextPart | _RefusalPart | _ThinkingPart, Field(discriminator="type")],
    BeforeValidator(_readable),
]
_ChatContent = Annotated[
    wb.Many[_ReadPart], BeforeValidator(wb.one_part, json_schema_input_type=str | list[_ReadPart])
]


def _arguments_of(value: object) -> object:
    return orjson.dumps(value).decode() if isinstance(value, dict) else value


class _CalledFunction(WireObject):
    name: wb.Name
    arguments: Annotated[
        str, BeforeValidator(_arguments_of, json_schema_input_type=str | dict[str, Any])
    ] = ""


class _ChatCall(WireObject):
    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction
    index: Annotated[Any, Noted("clients that join chunks send it back")] = None


class _PlainMessage(WireObject):
    role: Literal["system", "developer", "user"]
    content: _ChatContent
    name: wb.Speaker | None = None
    tool_calls: Annotated[Any, Refused("Calls are the assistant's: put them there.")] = None

    @cached_property
    def message(self) -> Message:
        """The same object at every turn, so that what is derived from it is reused."""
        role: Literal["user", "system"] = "user" if self.role == "user" else "system"
        return Message(role, tuple(_texts(self.content)), name=self.name or None)


class _AssistantMessage(WireObject):
    role: Literal["assistant"]
    content: Annotated[
        wb.Many[_OwnPart],
        BeforeValidator(wb.one_part, json_schema_input_type=str | list[_OwnPart]),
    ] = []
    name: wb.Speaker | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: wb.Many[_ChatCall] = []
    function_call: Annotated[Any, Refused("Send tool_calls instead.")] = None
    audio: Annotated[Any, Refused("Send what was said as content.")] = None
    prefix: Annotated[Any, Refused("A reply that goes on with it is not supported.")] = None
    id: wb.Remark = None
    annotations: wb.Remark = None
    reasoning_details: wb.Remark = None
    thinking_blocks: wb.Remark = None
    provider_specific_fields: wb.Remark = None

    @cached_property
    def message(self) -> Message:
        """As a plain message's."""
        thought = self.reasoning_content or self.reasoning or "".join(_thoughts(self.content))
        thoughts = (Reasoning(thought),) if thought else ()
        refusal = (Text(self.refusal),) if self.refusal else ()
        calls = (ToolCall(c.id, c.function.name, c.function.arguments) for c in self.tool_calls)
        parts: tuple[Part, ...] = (*thoughts, *_texts(self.content), *refusal, *calls)
        return Message("assistant", parts, name=self.name or None)


class _ToolMessage(WireObject):
    role: Literal["tool"]
    content: _ChatContent = []
    tool_call_id: wb.NonEmpty
    name: Annotated[Any, Noted("the call is known by its id")] = None

    @cached_property
    def message(self) -> Message:
        """As a plain message's."""
        return Message("tool", tuple(_texts(self.content)), tool_call_id=self.tool_call_id)


AnyMessage = Annotated[
    Annotated[_PlainMessage | _AssistantMessage | _ToolMessage, Field(discriminator="role")],
    WrapValidator(ValidationCache()),
]


def _texts(content: Iterable[_TextPart | _RefusalPart | _ThinkingPart]) -> Iterator[Text]:
    for p in content:
        match p:
            case _TextPart() if p.text:
                yield Text(p.text)
            case _RefusalPart() if p.refusal:
                yield Text(p.refusal)


def _thoughts(content: Iterable[_TextPart | _RefusalPart | _ThinkingPart]) -> Iterator[str]:
    return (p.thinking for p in content if isinstance(p, _ThinkingPart))
