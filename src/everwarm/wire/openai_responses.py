"""OpenAI's responses: a body becomes a `Request`. The answer is spelled in `responses_stream.py`.

A reply's items (reasoning, message, calls) come back one by one and are joined again to the one
message that the model wrote. An `item_reference` stands for an item of a stored response
(`stored_items.py`). Tools of a `namespace` are flattened; those that OpenAI runs are not offered to
the model.

What would change the answer is honoured or refused by its path, all else is noted (`fields.py`). A
refusal never repeats input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, WrapValidator

from everwarm.errors import RequestError
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall
from everwarm.request import Request
from everwarm.wire import body as wb
from everwarm.wire import constraints
from everwarm.wire.extensions import Effort, Everwarm
from everwarm.wire.fields import Hint, Noted, Refused, WireObject, bounded, ignored_in
from everwarm.wire.format import ParsedRequest
from everwarm.wire.hosted import check_choice, hosted_in
from everwarm.wire.once import Once
from everwarm.wire.responses_stream import Encoder, turn_of_item
from everwarm.wire.responses_tools import AnyTool, Named, named_tools
from everwarm.wire.sealed import Seals
from everwarm.wire.stored_items import GivenItem, Lookup, StoredItems, stored_input


class _InputText(WireObject):
    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str
    annotations: wb.Afterwards = None
    logprobs: wb.Afterwards = None
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


def _parts_of(value: object) -> object:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


_Part = Annotated[_InputText | _Refusal | _Media, Field(discriminator="type")]
_Content = Annotated[
    wb.Many[_Part], BeforeValidator(_parts_of, json_schema_input_type=str | list[_Part])
]


class _Item(WireObject):
    id: str | None = None
    status: wb.Afterwards = None


class _Message(_Item):
    type: Literal["message"]
    role: Literal["system", "developer", "user", "assistant"]
    content: _Content
    phase: wb.Afterwards = None


class _Reasoning(_Item):
    type: Literal["reasoning"]
    summary: _Content = []
    content: _Content = []
    encrypted_content: str = ""


_AWAITED = "a client runs its tools as it likes"


class _Call(_Item):
    type: Literal["function_call"]
    call_id: wb.NonEmpty
    name: wb.Name
    arguments: str
    async_: Annotated[Any, Noted(_AWAITED), Field(alias="async")] = None
    namespace: str | None = None
    caller: wb.Afterwards = None


class _CustomCall(_Item):
    type: Literal["custom_tool_call"]
    call_id: wb.NonEmpty
    name: wb.Name
    input: str
    async_: Annotated[Any, Noted(_AWAITED), Field(alias="async")] = None
    namespace: str | None = None
    caller: wb.Afterwards = None


_BY_ID = "the call is known by its id"


class _Output(_Item):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: wb.NonEmpty
    output: _Content
    name: Annotated[Any, Noted(_BY_ID)] = None
    namespace: Annotated[Any, Noted(_BY_ID)] = None
    caller: wb.Afterwards = None


class _Reference(WireObject):
    type: Literal["item_reference"]
    id: wb.NonEmpty


_AnyItem = Annotated[
    _Message | _Reasoning | _Call | _CustomCall | _Output | _Reference, Field(discriminator="type")
]
_OneItem = Annotated[_AnyItem, WrapValidator(Once())]
_Items = wb.Many[_OneItem]
_STORED: TypeAdapter[_AnyItem] = TypeAdapter(_OneItem)


def _items_of(value: object) -> object:
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


class _Body(WireObject):
    model: Annotated[str, Field(max_length=1024)] | None = None
    input: Annotated[
        _Items,
        Field(min_length=1),
        BeforeValidator(
            _items_of, json_schema_input_type=str | Annotated[_Items, Field(min_length=1)]
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
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
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
_TAGS = frozenset(
    {"message", "reasoning", "function_call", "custom_tool_call", "function_call_output"}
    | {"custom_tool_call_output", "input_text", "output_text", "text", "summary_text"}
    | {"item_reference", "reasoning_text", "refusal", "input_image", "input_file", "input_audio"}
    | {"function", "custom", "function_tool", "custom_tool", "namespace_tool", "hosted_tool"}
)


def parse(body: bytes, namespace: str = "", stored: StoredItems | None = None) -> ParsedRequest:
    """Read a body. Raises RequestError with the path of the first field that is wrong.

    `stored`: where the responses and items are found that it refers to.
    """
    b = wb.read(body, _Body, tags=_TAGS)
    lookup = Lookup(stored, namespace, _STORED.validate_python)
    given = lookup.conversation(b.previous_response_id, b.input)
    tools, names = named_tools(b.tools)
    choice, named = constraints.chosen(b.tool_choice)
    check_choice(b.tools, named, forced=choice == "required")
    wants_logprobs = b.top_logprobs is not None or "message.output_text.logprobs" in b.include
    own = (Message("system", (Text(b.instructions),)),) if b.instructions else ()
    request = Request(
        model=b.model,
        messages=(*own, *_messages(given, names)),
        tools=tools,
        tool_choice=choice,
        named_tool=next((shown for shown, n in names.items() if n.name == named), named),
        parallel_calls=b.parallel_tool_calls,
        shape=constraints.flat_shape(b.text.format, "text.format"),
        sampling=wb.sampling(b.temperature, b.top_p),
        max_tokens=b.max_output_tokens,
        logprobs=b.top_logprobs or 0 if wants_logprobs else None,
        template_args=wb.effort_args(b.reasoning.effort),
        namespace=namespace,
        history=b.everwarm.history,
        thinking_budget=b.everwarm.thinking_budget,
        forced_reply=b.everwarm.reply,
        ignored=bounded((*ignored_in(b), *hosted_in(b.tools), *_not_included(b.include))),
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
        stored_input=stored_input(given) if b.store else None,
        session=wb.session_name(b.prompt_cache_key),
    )


def _not_included(include: list[str]) -> list[str]:
    return ["include[]"] if set(include) - _INCLUDES else []


def _echo(b: _Body) -> dict[str, Any]:
    """What a response says of its request."""
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


def _choice_of(b: _Body) -> object:
    given = b.tool_choice.model_dump(exclude_none=True)
    return given if b.tool_choice.name else b.tool_choice.type


def _format_of(b: _Body) -> dict[str, Any]:
    if b.text.format is None:
        return {"type": "text"}
    return b.text.format.model_dump(exclude_unset=True, by_alias=True)


def _messages(given: list[GivenItem], names: Mapping[str, Named]) -> list[Message]:
    """Items as messages: what one reply was made of is one message again."""
    visible = {(n.namespace, n.name): shown for shown, n in names.items()}
    out: list[Message] = []
    reply, turn, seals = list[Part](), "", Seals()
    for item, path in ((g.read, g.path) for g in given):
        parts = _reply_parts(item, path, visible, seals)
        if parts is None:
            out += _closed(reply)
            out.append(_other(item, path))
            reply = []
            continue
        new = turn_of_item(item.id)
        if reply and _begins_anew(item, reply, turn, new):
            out += _closed(reply)
            reply = []
        turn = new
        reply += parts
    return [*out, *_closed(reply)]


def _begins_anew(item: _AnyItem, reply: list[Part], before: str, turn: str) -> bool:
    """Two replies in a row: by the ids that we gave, else where somebody thinks again."""
    if before and turn:
        return before != turn
    return isinstance(item, _Reasoning) and not isinstance(reply[-1], Reasoning)


def _closed(reply: list[Part]) -> list[Message]:
    return [Message("assistant", tuple(reply))] if reply else []


def _reply_parts(
    item: _AnyItem, path: str, visible: Mapping[tuple[str | None, str], str], seals: Seals
) -> list[Part] | None:
    """What an item adds to a reply; None for what is not the model's."""
    match item:
        case _Reasoning():
            shown = _texts(item.content, path) or _texts(item.summary, path)
            thought = "".join(t.text for t in shown) or seals.unseal(item.encrypted_content)
            return [Reasoning(thought)] if thought else []
        case _Message(role="assistant"):
            return [*_texts(item.content, f"{path}.content")]
        case _Call():
            name = visible.get((item.namespace, item.name), item.name)
            return [ToolCall(item.call_id, name, item.arguments)]
        case _CustomCall():
            name = visible.get((item.namespace, item.name), item.name)
            return [ToolCall(item.call_id, name, json.dumps({"input": item.input}))]
        case _:
            return None


def _other(item: _AnyItem, path: str) -> Message:
    match item:
        case _Message():
            texts = tuple(_texts(item.content, f"{path}.content"))
            return Message("user" if item.role == "user" else "system", texts)
        case _Output():
            texts = tuple(_texts(item.output, f"{path}.output"))
            return Message("tool", texts, tool_call_id=item.call_id)
        case _:
            raise RequestError(f"{path} is not supported.", param=path)


def _texts(parts: list[_Part], path: str) -> list[Text]:
    out: list[Text] = []
    for i, p in enumerate(parts):
        match p:
            case _InputText():
                out += [Text(p.text)] if p.text else []
            case _Refusal():
                out += [Text(p.refusal)] if p.refusal else []
            case _Media():
                here = f"{path}.{i}"
                kind = p.type.removeprefix("input_")
                raise RequestError(
                    f"{here}: an {kind} cannot be read by this model; send text."
                    if kind[0] in "ai"
                    else f"{here}: a {kind} cannot be read by this model; send text.",
                    param=here,
                )
    return out
