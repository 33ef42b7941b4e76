"""Decides which model names mean the model that is served."""

from __future__ import annotations

from typing import Final

from everwarm.errors import NotFound
from everwarm.job import ModelInfo

BUILT_IN: Final = "claude-"
"""Claude Code has model names built in, also for its titles: a user who only sets an address and a
key has not chosen them."""


def names_of_no_effect(asked: str | None, info: ModelInfo) -> tuple[str, ...]:
    """`("model",)` where the name is one that a client has built in, and so has no effect.

    Raises NotFound for another model's name.
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
