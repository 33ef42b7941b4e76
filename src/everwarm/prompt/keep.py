"""What is kept of a reply beyond this process, and the door to where it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from everwarm.messages import MessageId
from everwarm.prompt.verbatim import Reply
from everwarm.tokens import Mark, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One reply and how its history got to it.

    `tokens` are those from the end of the reply `base` (from the start where there is none) to
    this reply's end; `marks` lie in them, counted from the history's start. `at`: the time that
    the conversation's template sees, unix seconds. `tools`: the conversation's, as JSON.
    """

    thread: MessageId
    id: MessageId
    base: MessageId | None
    tokens: Tokens[int]
    marks: tuple[Mark, ...]
    reply: Reply
    at: float
    tools: str = ""


class ReplyStore(Protocol):
    """Keeps replies of one model."""

    def load(self, thread: MessageId) -> list[Kept]:
        """A conversation's replies in the order in which they were kept. May read files."""

    def keep(self, kept: Kept) -> None:
        """Keep a reply; returns at once."""
