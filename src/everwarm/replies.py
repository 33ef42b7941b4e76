"""Replies as the model wrote them, and the door to where they outlive this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from everwarm.messages import MessageId
from everwarm.tokens import Mark, Tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as the model wrote it, in `tokens`, without the token that ended it.

    `content` is its message's `content_id`, `before` that of the message before it, `index` the
    number of messages before it; `text` is what clients show, trimmed; `calls` as `calls_key`.
    `args` are the template's arguments with which it was asked for.
    """

    tokens: Tokens[int]
    content: bytes
    before: bytes
    index: int
    text: str = ""
    calls: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One reply of a caller (`namespace`) and how its history got to it.

    `tokens` are those from the end of the reply `base` (from the start where there is none) to
    this reply's end; `marks` lie in them, counted from the history's start. `at`: the time that
    the conversation's template sees, unix seconds. `tools`: the conversation's, as JSON.
    """

    namespace: str
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

    def called(self, namespace: str, calls: Sequence[str]) -> list[Kept]:
        """A caller's replies with these `Reply.calls`, of any conversation. May read files."""

    def others(self, thread: MessageId) -> int:
        """How many replies of this conversation other models gave. May read files."""

    def keep(self, kept: Kept) -> None:
        """Keep a reply; returns at once."""
