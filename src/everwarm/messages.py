"""Messages of a conversation: what was said, in no client's dialect.

A message is immutable and made of parts. Its *canonical form* leaves out what clients add, drop
or rewrite without changing what was said (reasoning, outer whitespace, ids, `null` against `""`,
the spelling of JSON arguments), so that a message is recognised when it comes back. Its *id* is
the hash of its canonical form and its parent's id: one id names a whole history.

Not here: rendering, tokens, anything of one wire format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NewType

Role = Literal["system", "user", "assistant", "tool"]
MessageId = NewType("MessageId", str)


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought before it answered."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. `arguments` is JSON text, as its writer spelled it."""

    id: str
    name: str
    arguments: str


Part = Text | Reasoning | ToolCall


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation. `tool_call_id` says which call a tool message answers."""

    role: Role
    parts: tuple[Part, ...]
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """All text parts, joined without anything in between."""
        return "".join(p.text for p in self.parts if isinstance(p, Text))

    @property
    def reasoning(self) -> str:
        """All reasoning parts, joined."""
        return "".join(p.text for p in self.parts if isinstance(p, Reasoning))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls, in the order in which they were made."""
        return tuple(p for p in self.parts if isinstance(p, ToolCall))


def json_value(text: str) -> object:
    """Parse JSON text, or give the text itself back where it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def canonical(message: Message) -> bytes:
    """Spell a message so that all spellings of the same content are the same bytes.

    Reasoning is left out, outer whitespace trimmed, arguments compared as JSON values. A call's
    id is left out too: it is a name, not content.
    """
    calls = [[c.name, json_value(c.arguments)] for c in message.tool_calls]
    form = [message.role, message.text.strip(), calls]
    return json.dumps(form, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def root_id(parts: Iterable[bytes]) -> MessageId:
    """The id a conversation starts from: a hash of what shapes its head besides messages."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return MessageId(h.hexdigest())


def child_id(parent: MessageId, content: bytes) -> MessageId:
    """The id of the message with this canonical content behind `parent`."""
    return MessageId(hashlib.blake2b(parent.encode() + content, digest_size=16).hexdigest())


def call_key(call_id: str) -> str:
    """A call id as clients bring it back: at least one of them strips all but alphanumerics."""
    return "".join(c for c in call_id if c.isalnum())
