"""What a reply must be: which tool it has to call, and which JSON its answer has to match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from everwarm.errors import RequestError
from everwarm.request import AnswerSchema
from everwarm.wire.body import JsonObject, Name
from everwarm.wire.fields import Noted, WireObject

_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def _typed(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


class _Named(WireObject):
    name: Name


class _ToolObject(WireObject):
    type: Literal["none", "auto", "required", "function", "custom"]
    function: _Named | None = None  # chat completions name the tool one level further down
    custom: _Named | None = None
    name: Name | None = None


Choice = Annotated[_ToolObject, BeforeValidator(_typed)]
"""OpenAI's `tool_choice`: a word, or an object that names a tool."""

AUTO = _ToolObject(type="auto")


def tool_choice_of(choice: _ToolObject) -> tuple[Literal["none", "auto", "required"], str | None]:
    """The choice, and the tool that must be called. Raises RequestError where it has no name."""
    if choice.type != "function" and choice.type != "custom":
        return choice.type, None
    inner = choice.function or choice.custom
    name = inner.name if inner else choice.name
    if name is None:
        raise RequestError("tool_choice: the tool's name is required.", param="tool_choice")
    return "required", name


class _JsonSchema(WireObject):
    name: Annotated[Any, Noted("the schema says it all")] = None
    description: Annotated[Any, Noted("the schema says it all")] = None
    schema_: JsonObject | None = Field(None, alias="schema")
    strict: Annotated[Any, Noted("an answer is always held to its schema")] = None


class ChatFormat(WireObject):
    """`response_format` of chat completions."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class FlatFormat(WireObject):
    """`text.format` of responses, and Anthropic's `format`: the schema stands beside the type. A
    response repeats all of it."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    description: str = ""
    schema_: JsonObject | None = Field(None, alias="schema")
    strict: bool = False


def chat_shape(field: ChatFormat | None) -> AnswerSchema | None:
    """The schema of a chat completion's answer; None where any text will do."""
    inner = field.json_schema if field else None
    schema = inner.schema_ if inner else None
    path = "response_format.json_schema"
    return _shape(field.type if field else "text", schema, path, "response_format", bool(inner))


def flat_shape(field: FlatFormat | None, path: str) -> AnswerSchema | None:
    """As `chat_shape`, for the other formats. `path` leads to the field."""
    if field is None:
        return None
    return _shape(field.type, field.schema_, path, path, field.schema_ is not None)


def _shape(
    kind: str, schema: Mapping[str, Any] | None, path: str, top: str, described: bool
) -> AnswerSchema | None:
    if kind == "text":
        return None
    if kind == "json_object":
        return AnswerSchema(_ANY_OBJECT, f"{top}.type")
    if not described:
        missing = path if path != top else f"{path}.schema"
        raise RequestError(f"{missing} is required.", param=missing)
    return AnswerSchema(schema or {}, f"{path}.schema")
