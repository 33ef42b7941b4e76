"""Fields that go to the chat template, and everwarm's own fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from everwarm.request import HistoryMode
from everwarm.wire.strict import StrictObject

Budget = Annotated[int, Field(ge=0, le=2**53)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TemplateArgs(StrictObject):
    """`chat_template_kwargs`: what published templates understand; all else is refused by name."""

    enable_thinking: bool | None = None
    thinking: bool | None = None
    thinking_budget: Budget | None = None
    reasoning_effort: Effort | None = None
    preserve_thinking: bool | None = None
    clear_thinking: bool | None = None
    truncate_history_thinking: bool | None = None


class Everwarm(StrictObject):
    """`everwarm`: how this one request is to be answered.

    `thinking_budget` bounds the reasoning in tokens, where the format has no field for it. `reply`
    is what the model is made to say, for tests; a server allows it only where it is told.
    """

    history: HistoryMode | None = None
    thinking_budget: Budget | None = None
    reply: str | None = None


_NONE = TemplateArgs()


def template_args(effort: Effort | None, kwargs: TemplateArgs = _NONE) -> dict[str, Any]:
    """The arguments of the chat template; those in `kwargs` win."""
    args: dict[str, Any] = {}
    if effort == "none":
        args["enable_thinking"] = False
    elif effort is not None:
        args["reasoning_effort"] = effort
    return args | kwargs.model_dump(exclude_none=True)


def history_mode(own: Everwarm, kwargs: TemplateArgs) -> HistoryMode | None:
    """How past replies are written: by the template, where it is asked to drop their reasoning."""
    drops = kwargs.clear_thinking or kwargs.truncate_history_thinking
    if own.history is None and (drops or kwargs.preserve_thinking is False):
        return "template"
    return own.history


def first_budget(*budgets: int | None) -> int | None:
    """The first thinking budget that is set, where several fields may set one."""
    return next((b for b in budgets if b is not None), None)
