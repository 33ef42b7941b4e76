"""Which names of models mean the one that is served."""

from __future__ import annotations

from typing import Final

from everwarm.errors import NotFound
from everwarm.job import ModelInfo

BUILT_IN: Final = "claude-"
"""Claude Code has names of its own, also for its titles: who gives it an address and a key only
has not chosen them."""


def names_of_no_effect(asked: str | None, info: ModelInfo) -> tuple[str, ...]:
    """`("model",)` where the name is one that a client has built in, which changes nothing.

    Raises NotFound where it is another model's.
    """
    if asked in {info.id, info.id.rsplit("/", 1)[-1], "default", *info.aliases, None, ""}:
        return ()
    if asked is not None and asked.startswith(BUILT_IN):
        return ("model",)
    raise NotFound(
        f"This server has the model '{info.id}' only; ask for that.",
        param="model",
        code="model_not_found",
    )
