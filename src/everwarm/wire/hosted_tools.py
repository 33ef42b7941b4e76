"""Tools that only a provider has.

- A tool that the provider *runs* (web search, code execution) cannot be run here. It is not offered
  to the model, and noted; a request that forces it is refused.
- A tool that the client runs, and whose parameters only the provider's models know (`bash`,
  `apply_patch`), is refused: a model here has to be told what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict

from everwarm.errors import RequestError
from everwarm.wire.fields import WireObject, bounded_paths, ignored_paths, safe_name

HOSTED: Final = "hosted_tool"
_RUN_BY_CLIENTS = re.compile(
    r"(custom|bash|text_editor|computer|memory|browser|local_shell|shell|apply_patch)"
    r"(_use|_toolset)?(_preview|_\d+)?"
)


def is_run_by_clients(kind: str) -> bool:
    """Whether clients run the tools of this type, and never send their parameters."""
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


def tag_by_type(own: Iterable[str], default: str | None = None) -> Any:
    """Make a discriminator that tags a tool by its type: `function_tool` and the like for the types
    in `own`, `hosted_tool` for all others."""
    types = frozenset(own)

    def tag(value: Any) -> str:
        kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        kind = default if kind is None else kind
        return f"{kind}_tool" if isinstance(kind, str) and kind in types else HOSTED

    return tag


def ignored_of(body: WireObject, tools: Sequence[object], *more: str) -> tuple[str, ...]:
    """The paths of everything in a body that is noted, the tools that are not offered among it."""
    kinds = (t.type for t in tools if isinstance(t, HostedTool))
    hosted = (f"tools[type={safe_name(kind)}]" for kind in kinds)
    return bounded_paths((*ignored_paths(body), *bounded_paths(hosted), *more))


def check_choice(tools: Sequence[object], named: str | None, *, forced: bool) -> None:
    """Raise RequestError where the request forces a call that only a hosted tool could answer."""
    hosted = [t for t in tools if isinstance(t, HostedTool)]
    names = [getattr(t, "name", t.type) for t in hosted]
    if forced and hosted and (named in names or (named is None and len(hosted) == len(tools))):
        raise RequestError(
            "tool_choice: it forces a tool that its provider runs, and nothing here can. "
            "Offer a tool of your own, or leave tool_choice out.",
            param="tool_choice",
        )
