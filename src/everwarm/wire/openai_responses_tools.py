"""The tools of OpenAI's responses: all kinds that clients send, as functions that a model can call.

- `function`: as it is.
- `namespace`: its functions, each under its own name where that is free, else with the namespace's
  name in front.
- `custom`: a function with one text, `input`. A grammar for it is refused: none is applied here.
- A tool that OpenAI runs (`web_search`): noted, and not offered to the model (`hosted_tools.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from everwarm.errors import RequestError
from everwarm.request import Tool
from everwarm.wire import body as wb
from everwarm.wire.fields import Noted, WireObject
from everwarm.wire.hosted_tools import HOSTED, HostedTool, tag_by_type

MAX_TOOLS: Final = 1024
_AtHead = Annotated[Any, Noted("all tools stand at the head of the prompt")]
_ByModel = Annotated[Any, Noted("the model is the only one that calls")]
_Awaited = Annotated[Any, Noted("a client runs its tools as it likes")]
_INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
}


class FunctionTool(WireObject):
    """A function, flat as this format spells it."""

    type: Literal["function"]
    name: wb.Name
    description: str = ""
    parameters: wb.JsonObject | None = None
    strict: bool = False
    output_schema: Annotated[Any, Noted("chat templates have no place for it")] = None
    defer_loading: _AtHead = None
    allowed_callers: _ByModel = None
    async_: Annotated[_Awaited, Field(alias="async")] = None


class _PlainText(WireObject):
    type: Literal["text"]


class CustomTool(WireObject):
    """A tool whose input is text."""

    type: Literal["custom"]
    name: wb.Name
    description: str = ""
    format: _PlainText | None = None
    defer_loading: _AtHead = None
    allowed_callers: _ByModel = None
    async_: Annotated[_Awaited, Field(alias="async")] = None


_Inner = Annotated[FunctionTool | CustomTool, Field(discriminator="type")]


class NamespaceTool(WireObject):
    """Tools that belong together."""

    type: Literal["namespace"]
    name: wb.Name
    description: str = ""
    tools: wb.Many[_Inner]


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("function_tool")]
    | Annotated[CustomTool, Tag("custom_tool")]
    | Annotated[NamespaceTool, Tag("namespace_tool")]
    | Annotated[HostedTool, Tag(HOSTED)],
    Discriminator(tag_by_type({"function", "custom", "namespace"})),
]
TOOL_TAGS: Final = frozenset(
    {"function", "custom", "function_tool", "custom_tool", "namespace_tool", HOSTED}
)
"""By what the unions of tools choose."""


@dataclass(frozen=True, slots=True)
class ToolName:
    """The client's name of a tool, which the model may know under another one."""

    name: str
    namespace: str | None = None
    is_custom: bool = False


def named_tools(tools: Sequence[Any]) -> tuple[tuple[Tool, ...], Mapping[str, ToolName]]:
    """The functions for the model, and by each one's name what the client calls it."""
    out: list[Tool] = []
    names: dict[str, ToolName] = {}
    for n, (tool, namespace) in enumerate(_flat(tools)):
        if n >= MAX_TOOLS:
            raise RequestError(f"tools: there may be {MAX_TOOLS:,} in all.", param="tools")
        name = tool.name
        if name in names and namespace:
            name = f"{namespace.rstrip('_')}__{tool.name}"
        if name in names:
            raise RequestError("tools: two tools have the same name.", param="tools")
        names[name] = ToolName(tool.name, namespace, isinstance(tool, CustomTool))
        parameters = _INPUT if isinstance(tool, CustomTool) else tool.parameters
        strict = isinstance(tool, FunctionTool) and tool.strict
        out.append(Tool(name, tool.description, parameters, strict))
    return tuple(out), names


def _flat(tools: Sequence[Any]) -> Iterator[tuple[FunctionTool | CustomTool, str | None]]:
    """All tools with their namespaces. Those without come first, so that they keep their names."""
    yield from ((t, None) for t in tools if isinstance(t, FunctionTool | CustomTool))
    for group in tools:
        if isinstance(group, NamespaceTool):
            yield from ((t, group.name) for t in group.tools)
