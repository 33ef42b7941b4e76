"""Replies as the model wrote them, and the protocol of what keeps them beyond this process.

A model that is asked twice may answer the same twice, with other reasoning and other call ids.
Each of these *samples* has an id of its own; the id of the *place* is common to them:

    prompt ─┬─ "Sure."  thought: A    place: prompt + "Sure."    id: place's, + A
            └─ "Sure."  thought: B    place: prompt + "Sure."    id: place's, + B
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from everwarm.messages import (
    Message,
    MessageId,
    calls_key,
    child_id,
    content_id,
    reasoning_id,
)
from everwarm.tokens import Mark, Tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as the model wrote it, in `tokens`, without the token that ended it.

    `content` is its message's `content_id`, `before` that of the message before it, `index` the
    number of messages before it; `text` is what clients show, trimmed, and empty for one that a
    client cut short; `calls` as `calls_key`, `reasoning` as `reasoning_id`, None where an earlier
    version kept the reply without it. `args` are the template's arguments with which it was asked
    for.
    """

    tokens: Tokens[int]
    content: bytes
    before: bytes
    index: int
    text: str = ""
    calls: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    reasoning: bytes | None = b""

    def may_be(self, reasoning: bytes) -> bool:
        """Whether a message with this `reasoning_id` can mean this reply; without any, it can."""
        return not reasoning or self.reasoning is None or self.reasoning == reasoning


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One reply of a caller (`namespace`) and how its history got to it.

    `tokens` are those from the end of the reply `base` (from the start where there is none) to
    this reply's end; `marks` lie in them, counted from the history's start. `place`: the id that
    all samples with this content have in common. `at`: the time that the conversation's template
    sees, unix seconds. `tools`: the conversation's, as JSON.
    """

    namespace: str
    thread: MessageId
    id: MessageId
    place: MessageId
    base: MessageId | None
    tokens: Tokens[int]
    marks: tuple[Mark, ...]
    reply: Reply
    at: float
    tools: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminder:
    """The end of a user's message as it was read, with reminders: all behind the bare text.

    `bare`: the history that ends with the bare message. `thread`: the conversation. `found_by`: the
    thread that this is without reminders at the end of its first message.
    """

    thread: MessageId
    found_by: MessageId
    bare: MessageId
    text: str


def sample_id(place: MessageId, reasoning: bytes, calls: str) -> MessageId:
    """The id of the reply with this `reasoning_id` and these `calls_key` at a place."""
    if not reasoning and not calls:
        return place
    digest = hashlib.blake2b(reasoning + calls.encode("utf-8", "surrogatepass"), digest_size=16)
    return child_id(place, digest.digest())


def reply_id(head: MessageId, reply: Message) -> MessageId:
    """The id of a reply of the model behind this history."""
    place = child_id(head, content_id(reply))
    return sample_id(place, reasoning_id(reply), calls_key(reply))


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

    def reminders(self, found_by: MessageId) -> list[Reminder]:
        """The messages with reminders of a conversation. May read files."""

    def remind(self, reminder: Reminder) -> None:
        """Keep a message with reminders; returns at once."""
