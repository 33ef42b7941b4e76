"""Tools that only a provider has.

- Those that it *runs* (web search, code execution) cannot be run here. They are not offered to the
  model, and noted; a request that forces one is refused.
- Those that the client runs, and whose parameters only the provider's models know (`bash`,
  `apply_patch`), are refused: a model here has to be told what they take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict

from everwarm.errors import RequestError
from everwarm.wire.fields import bounded, spelled

HOSTED: Final = "hosted_tool"
_RUN_BY_CLIENTS = re.compile(
    r"(custom|bash|text_editor|computer|memory|browser|local_shell|shell|apply_patch)"
    r"(_use|_toolset)?(_preview|_\d+)?"
)


def is_run_by_clients(kind: str) -> bool:
    """Whether a tool of this type is one that clients run, by parameters that they do not tell."""
    return _RUN_BY_CLIENTS.fullmatch(kind) is not None


def _not_run_by_clients(kind: str) -> str:
    if is_run_by_clients(kind):
        raise ValueError(
            "is a tool whose parameters only its provider's models know; "
            "describe it as a function with parameters of its own"
        )
    return kind


class HostedTool(BaseModel):
    """A tool that its provider runs, or one newer than this server. Its options are not read."""

    AS_A_WHOLE: ClassVar = ("noted", "it is not offered to the model, and refused if it is forced")

    model_config = ConfigDict(extra="allow", strict=True)

    type: Annotated[str, AfterValidator(_not_run_by_clients)]


def kind_of(own: Iterable[str], default: str | None = None) -> Any:
    """Choose a tool's class by its type, for `Tag("function_tool")` and the like: one of `own`, or
    else `hosted_tool`."""
    known = frozenset(own)

    def chosen(value: Any) -> str:
        given = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        kind = default if given is None else given
        return f"{kind}_tool" if isinstance(kind, str) and kind in known else HOSTED

    return chosen


def hosted_in(tools: Sequence[object]) -> tuple[str, ...]:
    """The paths of tools that are not offered to the model."""
    kinds = (t.type for t in tools if isinstance(t, HostedTool))
    return bounded(f"tools[type={spelled(k)}]" for k in kinds)


def check_choice(tools: Sequence[object], named: str | None, *, forced: bool) -> None:
    """Raise RequestError where a call is forced that only a hosted tool could answer."""
    hosted = [t for t in tools if isinstance(t, HostedTool)]
    names = [getattr(t, "name", t.type) for t in hosted]
    if forced and hosted and (named in names or (named is None and len(hosted) == len(tools))):
        raise RequestError(
            "tool_choice: it forces a tool that its provider runs, and nothing here can. "
            "Offer a tool of your own, or leave tool_choice out.",
            param="tool_choice",
        )
