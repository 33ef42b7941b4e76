"""The input of OpenAI's responses: items become messages.

The items of one reply (reasoning, message, calls) come back one by one and are joined to the one
message that the model wrote. An `item_reference` stands for an item of a stored response
(`stored_items.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, WrapValidator

from everwarm.errors import RequestError
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall
from everwarm.wire import body as wb
from everwarm.wire.fields import Noted, WireObject
from everwarm.wire.openai_responses_stream import turn_of_item
from everwarm.wire.openai_responses_tools import ToolName
from everwarm.wire.seals import Seals
from everwarm.wire.stored_items import InputItem
from everwarm.wire.validation_cache import ValidationCache


class _InputText(WireObject):
    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str
    annotations: wb.Remark = None
    logprobs: wb.Remark = None
    prompt_cache_breakpoint: wb.Cached = None


class _Refusal(WireObject):
    type: Literal["refusal"]
    refusal: str


class _Media(WireObject):
    AS_A_WHOLE: ClassVar = ("refused", "this model reads text")

    type: Literal["input_image", "input_file", "input_audio"]
    image_url: Any = None
    file_url: Any = None
    file_id: Any = None
    file_data: Any = None
    filename: Any = None
    detail: Any = None
    input_audio: Any = None


_ItemPart = Annotated[_InputText | _Refusal | _Media, Field(discriminator="type")]
_ItemContent = Annotated[
    wb.Many[_ItemPart],
    BeforeValidator(
        partial(wb.one_part, kind="input_text"), json_schema_input_type=str | list[_ItemPart]
    ),
]


class _Item(WireObject):
    id: str | None = None
    status: wb.Remark = None


class _MessageItem(_Item):
    type: Literal["message"]
    role: Literal["system", "developer", "user", "assistant"]
    content: _ItemContent
    phase: wb.Remark = None


class _ReasoningItem(_Item):
    type: Literal["reasoning"]
    summary: _ItemContent = []
    content: _ItemContent = []
    encrypted_content: str = ""


_AWAITED = "a client runs its tools as it likes"


class _FunctionCall(_Item):
    type: Literal["function_call"]
    call_id: wb.NonEmpty
    name: wb.Name
    arguments: str
    async_: Annotated[Any, Noted(_AWAITED), Field(alias="async")] = None
    namespace: str | None = None
    caller: wb.Remark = None


class _CustomCall(_Item):
    type: Literal["custom_tool_call"]
    call_id: wb.NonEmpty
    name: wb.Name
    input: str
    async_: Annotated[Any, Noted(_AWAITED), Field(alias="async")] = None
    namespace: str | None = None
    caller: wb.Remark = None


_BY_ID = "the call is known by its id"


class _CallOutput(_Item):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: wb.NonEmpty
    output: _ItemContent
    name: Annotated[Any, Noted(_BY_ID)] = None
    namespace: Annotated[Any, Noted(_BY_ID)] = None
    caller: wb.Remark = None


class _ItemReference(WireObject):
    type: Literal["item_reference"]
    id: wb.NonEmpty


AnyItem = Annotated[
    _MessageItem | _ReasoningItem | _FunctionCall | _CustomCall | _CallOutput | _ItemReference,
    Field(discriminator="type"),
]
_OneItem = Annotated[AnyItem, WrapValidator(ValidationCache())]
Items = wb.Many[_OneItem]
_ONE: TypeAdapter[AnyItem] = TypeAdapter(_OneItem)


def read_item(value: object) -> AnyItem:
    """An item of a stored response. Raises ValidationError."""
    return _ONE.validate_python(value)


def items_of(value: object) -> object:
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    if not isinstance(value, list):
        return value
    return [_typed(v) for v in value]


def _typed(item: object) -> object:
    """An item with its type, where the client left it out."""
    if not isinstance(item, dict) or item.get("type") is not None:
        return item
    if "role" in item:
        return {**item, "type": "message"}
    is_reference = "id" in item and item.keys() <= {"id", "type"}
    return {**item, "type": "item_reference"} if is_reference else item


TAGS = frozenset(
    {"message", "reasoning", "function_call", "custom_tool_call", "function_call_output"}
    | {"custom_tool_call_output", "input_text", "output_text", "text", "summary_text"}
    | {"item_reference", "reasoning_text", "refusal", "input_image", "input_file", "input_audio"}
)


def conversation(items: list[InputItem], names: Mapping[str, ToolName]) -> list[Message]:
    """Make messages of items; those of one reply become one message again."""
    visible = {(n.namespace, n.name): shown for shown, n in names.items()}
    out: list[Message] = []
    reply, turn, seals = list[Part](), "", Seals()
    for item, path in ((i.item, i.path) for i in items):
        parts = _reply_parts(item, path, visible, seals)
        if parts is None:
            out += _message(reply)
            out.append(_other(item, path))
            reply = []
            continue
        new = turn_of_item(item.id)
        if reply and _begins_reply(item, reply, turn, new):
            out += _message(reply)
            reply = []
        turn = new
        reply += parts
    return [*out, *_message(reply)]


def _begins_reply(item: AnyItem, reply: list[Part], before: str, turn: str) -> bool:
    """Whether a second reply begins: by the ids that we gave, else where reasoning comes again."""
    if before and turn:
        return before != turn
    return isinstance(item, _ReasoningItem) and not isinstance(reply[-1], Reasoning)


def _message(reply: list[Part]) -> list[Message]:
    return [Message("assistant", tuple(reply))] if reply else []


def _reply_parts(
    item: AnyItem, path: str, visible: Mapping[tuple[str | None, str], str], seals: Seals
) -> list[Part] | None:
    """What an item adds to a reply; None where the model did not write it."""
    match item:
        case _ReasoningItem():
            texts = _texts(item.content, path) or _texts(item.summary, path)
            thought = "".join(t.text for t in texts) or seals.unseal(item.encrypted_content)
            return [Reasoning(thought)] if thought else []
        case _MessageItem(role="assistant"):
            return [*_texts(item.content, f"{path}.content")]
        case _FunctionCall():
            name = visible.get((item.namespace, item.name), item.name)
            return [ToolCall(item.call_id, name, item.arguments)]
        case _CustomCall():
            name = visible.get((item.namespace, item.name), item.name)
            return [ToolCall(item.call_id, name, json.dumps({"input": item.input}))]
        case _:
            return None


def _other(item: AnyItem, path: str) -> Message:
    match item:
        case _MessageItem():
            texts = tuple(_texts(item.content, f"{path}.content"))
            return Message("user" if item.role == "user" else "system", texts)
        case _CallOutput():
            texts = tuple(_texts(item.output, f"{path}.output"))
            return Message("tool", texts, tool_call_id=item.call_id)
        case _:
            raise RequestError(f"{path} is not supported.", param=path)


def _texts(parts: list[_ItemPart], path: str) -> list[Text]:
    out: list[Text] = []
    for i, p in enumerate(parts):
        match p:
            case _InputText():
                out += [Text(p.text)] if p.text else []
            case _Refusal():
                out += [Text(p.refusal)] if p.refusal else []
            case _Media():
                here, kind = f"{path}.{i}", p.type.removeprefix("input_")
                what = f"{'a' if kind == 'file' else 'an'} {kind}"
                raise RequestError(
                    f"{here}: {what} cannot be read by this model; send text.", param=here
                )
    return out
