"""The messages of a conversation, in no client's dialect.

A message is immutable and made of parts. Its *canonical form* leaves out what clients add, drop
or rewrite without changing the content (reasoning, outer whitespace, ids, `null` against `""`,
the spelling of JSON arguments), so that a message is recognised when it comes back. Its *id* is
the hash of its canonical form and its parent's id: one id names a whole history. Several equal
replies of a model are told apart by call ids and reasoning (`replies.py`).

Not here: rendering, tokens, anything of one wire format.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NewType

Role = Literal["system", "user", "assistant", "tool"]
MessageId = NewType("MessageId", str)

_SHORT = 2048  # arguments of up to so many characters are spelled once and remembered
_BILLING = "x-anthropic-billing-header:"
_MARKER = re.compile(r"\n*<total_tokens>[^<]*</total_tokens>\n*")


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The model's reasoning before its answer."""

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
    """One entry of a conversation. `tool_call_id` says which call a tool message answers.

    `name`: who speaks, where several share a role. A model's reply has none.
    """

    role: Role
    parts: tuple[Part, ...]
    tool_call_id: str | None = None
    name: str | None = None
    _content: bytes = field(default=b"", init=False, repr=False, compare=False)
    _reasoning: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def text(self) -> str:
        """All text parts, joined without anything in between."""
        return "".join([p.text for p in self.parts if isinstance(p, Text)])

    @property
    def reasoning(self) -> str:
        """All reasoning parts, joined."""
        return "".join([p.text for p in self.parts if isinstance(p, Reasoning)])

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


def arguments_value(text: str) -> object:
    """A call's arguments as a JSON value; empty text is an empty object."""
    return json_value(text) if text.strip() else {}


def canonical(message: Message) -> bytes:
    """Spell a message so that all spellings of the same content are the same bytes.

    Reasoning is left out, as are markers that move; outer whitespace is trimmed, arguments are
    compared as JSON values. A call's id is left out too: it is a name, not content. Who speaks is
    part of a message, but not of a reply: the model gave itself no name.
    """
    text = without_markers(message.text).strip().encode("utf-8", "surrogatepass")
    form = b"%s\0%d\0%s" % (message.role.encode(), len(text), text)
    if message.name and message.role != "assistant":
        form += b"\1" + message.name.encode("utf-8", "surrogatepass")
    calls = message.tool_calls
    return form + _spelled_calls(calls) if calls else form


def _spelled_calls(calls: Iterable[ToolCall]) -> bytes:
    return b"\0".join(
        (_spelled_short if len(c.arguments) < _SHORT else _spelled)(c.name, c.arguments)
        for c in calls
    )


def _spelled(name: str, arguments: str) -> bytes:
    form = [name, arguments_value(arguments)]
    return json.dumps(form, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


_spelled_short = lru_cache(4096)(_spelled)


def without_markers(text: str) -> str:
    """The text without the count of tokens left, which one client rewrites at every request."""
    return _MARKER.sub("", text) if "<total_tokens>" in text else text


def tidied(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages without what one client adds for its own bookkeeping.

    A billing line in a system message is dropped. A marker that moves is kept in the last message
    only, and a system message that held nothing else is dropped with it.
    """
    last = len(messages) - 1
    out = [_tidy(m, keep_markers=i == last) for i, m in enumerate(messages)]
    return tuple(m for m in out if m is not None)


def _tidy(message: Message, *, keep_markers: bool) -> Message | None:
    plain = keep_markers or all("<total_tokens>" not in p.text for p in _texts(message))
    if plain and (message.role != "system" or _BILLING not in message.text):
        return message
    parts = tuple(
        Text(_tidy_text(message.role, p.text, keep_markers)) if isinstance(p, Text) else p
        for p in message.parts
    )
    tidy = replace(message, parts=parts)
    return None if message.role == "system" and not tidy.text.strip() else tidy


def _tidy_text(role: Role, text: str, keep_markers: bool) -> str:
    if role == "system" and text.startswith(_BILLING):
        text = text.partition("\n")[2]
    return text if keep_markers else without_markers(text)


def _texts(message: Message) -> Iterable[Text]:
    return (p for p in message.parts if isinstance(p, Text))


def root_id(parts: Iterable[bytes]) -> MessageId:
    """The id that a conversation starts from: a hash of what shapes its head besides messages."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return MessageId(h.hexdigest())


def content_id(message: Message) -> bytes:
    """The hash of a message's canonical form; computed once."""
    digest = message._content
    if not digest:
        digest = hashlib.blake2b(canonical(message), digest_size=16).digest()
        object.__setattr__(message, "_content", digest)
    return digest


def reasoning_id(message: Message) -> bytes:
    """The hash of a message's reasoning; empty where it has none. Computed once.

    Blanks do not count: clients trim each part of it, and join parts in ways of their own.
    """
    digest = message._reasoning
    if digest is None:
        text = "".join(message.reasoning.split()).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=16).digest() if text else b""
        object.__setattr__(message, "_reasoning", digest)
    return digest


def child_id(parent: MessageId, content: bytes) -> MessageId:
    """The id of the message with this `content_id` behind `parent`."""
    return MessageId(hashlib.blake2b(parent.encode() + content, digest_size=16).hexdigest())


def thread_id(namespace: str, first: bytes) -> MessageId:
    """The id of a caller's conversation by the `content_id` of its first user message."""
    return child_id(root_id([namespace.encode()]), first)


def call_key(call_id: str) -> str:
    """A call id as clients bring it back: at least one of them strips all but alphanumerics."""
    return call_id if call_id.isalnum() else "".join(c for c in call_id if c.isalnum())


def calls_key(message: Message) -> str:
    """The ids of all calls of a message, as clients bring them back."""
    return "/".join(call_key(c.id) for c in message.tool_calls)
