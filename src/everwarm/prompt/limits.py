"""What a model cannot do with its chat template, in sentences for people.

The server says them in its log when it starts, in `GET /v1/models`, and on its pages.
"""

from __future__ import annotations

from typing import Final

from everwarm.prompt.dialects.derive import NO_CALLS
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.proof import Proof, ReplyKind

_NAMES: Final[dict[ReplyKind, str]] = {
    "texts": "replies of text",
    "calls": "replies with a tool call",
    "parallel_calls": "replies with several tool calls",
    "results": "replies in a conversation with results of tools",
    "reasoning": "replies whose reasoning is sent back",
}


def limits_of(proof: Proof, dialect: Dialect) -> tuple[str, ...]:
    """One sentence for each thing that does not hold; empty where all does."""
    return tuple(s for s in (_rewrites(proof), _no_calls(dialect)) if s)


def _rewrites(proof: Proof) -> str:
    if not proof.faults:
        return ""
    kinds = ", ".join(_NAMES[k] for k in proof.faults)
    reason = " ".join(proof.reason.split()).rstrip(".")
    return (
        f"Past replies may be read again, in the chat template's words instead of the model's: "
        f"{kinds} ({reason})."
    )


def _no_calls(dialect: Dialect) -> str:
    if dialect.calls:
        return ""
    why = f" ({dialect.note.rstrip('.')})" if dialect.note and dialect.note != NO_CALLS else ""
    return (
        f"The chat template has no notation for tool calls{why}: tools in a request are accepted, "
        "and the model answers in text."
    )
