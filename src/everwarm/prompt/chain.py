"""The identity of a conversation: one id for each history in it.

    root -> id of [m0] -> id of [m0, m1] -> …        each from its parent's and its own content

The root hashes what shapes the head besides messages: tools, the caller's namespace, and what the
template's arguments change in a small conversation. So an argument that changes the scaffold alone
(thinking on or off) does not change the history.

A reply of the model is one of the samples at its place (`replies.py`). Its call ids and its
reasoning tell which one; where the client sends neither, the messages behind it do:

    u1 ─┬─ "Sure." (A) ── u2 ── "Done."     sent: u1, "Sure.", u2, "Done.", u3   ->  A
        └─ "Sure." (B)                      sent: u1, "Sure.", u3                ->  B, the latest

With sticky reminders (`reminders.py`) a user's message may have been read at its place with a
reminder behind it. It was, if a reply follows that was given there and not behind the bare message.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from everwarm.errors import RequestError
from everwarm.messages import (
    Message,
    MessageId,
    Text,
    child_id,
    content_id,
    reasoning_id,
    root_id,
    thread_id,
    tidied,
    without_markers,
)
from everwarm.prompt.bounded import Bounded
from everwarm.prompt.conversation import Conversations
from everwarm.prompt.reminders import Reminders
from everwarm.prompt.splice import Frame, Splicer
from everwarm.prompt.template_input import shows_name, tool_dicts
from everwarm.replies import sample_id
from everwarm.request import Request

_SMALL = (
    Message("user", (Text("u"),)),
    Message("assistant", (Text("a"),)),
    Message("user", (Text("u"),)),
)
_MOST_PATHS = 8
"""How many paths through a history are followed at once, where samples cannot be told apart."""


@dataclass(frozen=True, slots=True)
class History:
    """A request's messages and their ids. `ids[i]` is the history of `i` messages.

    A system message that holds only a marker that moves has no content, and its history the id of
    the one before. The content of a reply holds its reasoning only where a client made that up.
    `key`: the id of the history up to the first user message, tools and system prompt included.
    `thread`: the conversation by its first user message alone, whatever its tools and its system
    prompt are. `reminded`: which of `messages` keep a reminder that the client took out.
    """

    messages: tuple[Message, ...]
    contents: tuple[bytes, ...]
    ids: tuple[MessageId, ...]
    key: MessageId
    thread: MessageId
    namespace: str
    reminded: tuple[int, ...] = ()

    @property
    def head(self) -> MessageId:
        """The id of the whole history."""
        return self.ids[-1]

    @property
    def has_replies(self) -> bool:
        """Whether an assistant said something in it."""
        return any(m.role == "assistant" for m in self.messages)


@dataclass(slots=True)
class _ChainWalk:
    """One path through a history: its ids so far, and its messages that keep a reminder.

    `is_open`: no reply has shown yet that the last of these messages was read here.
    """

    ids: list[MessageId]
    reminded: dict[int, Message] = field(default_factory=dict)
    is_open: bool = False

    def with_reply(self, id: MessageId) -> _ChainWalk:
        """A copy that goes on with a known reply."""
        return _ChainWalk([*self.ids, id], self.reminded)


class Chains:
    """Makes histories of requests. Live: owned by the render thread."""

    def __init__(
        self,
        splicer: Splicer,
        conversations: Conversations,
        reminders: Reminders,
    ) -> None:
        self._splicer, self._conversations, self._reminders = splicer, conversations, reminders
        self._heads: Bounded[str, bytes] = Bounded(64)

    def history(self, request: Request, *, sticky: bool = False) -> History:
        """The history that a request brings. A reply known by its calls keeps its own content.

        `sticky`: messages keep reminders that the client took out.
        """
        messages = tuple(map(self._with_name, tidied(request.messages)))
        root = self._root(request)
        made = self._history(request.namespace, root, messages, sticky)
        first = _first_user(messages)
        if not sticky or self._knows_reply(made, first):
            return made
        # The first user message names the thread: replies are found under the one that was read.
        for _, message in (
            self._reminders.of(made.ids[first + 1], messages[first]) if messages else ()
        ):
            with_it = (*messages[:first], message, *messages[first + 1 :])
            kept = self._history(request.namespace, root, with_it, sticky)
            if self._knows_reply(kept, first):
                return replace(kept, reminded=tuple(sorted({first, *kept.reminded})))
        return made

    def _history(
        self, namespace: str, root: MessageId, messages: tuple[Message, ...], sticky: bool
    ) -> History:
        first = _first_user(messages)
        start = _plain_content(messages[first]) if messages else b""
        thread = thread_id(namespace, start)
        messages = self._own_replies(namespace, thread, messages)
        reasonings = {r.reasoning for r in self._conversations.of(thread).replies}
        contents = [self._content(namespace, m, reasonings) for m in messages]
        walk = self._walk(root, thread, namespace, messages, contents, sticky)
        said = list(messages)
        for i, message in walk.reminded.items():
            said[i], contents[i] = message, content_id(message)
        key = walk.ids[min(first + 1, len(messages))]
        return History(
            tuple(said), tuple(contents), tuple(walk.ids), key, thread, namespace,
            tuple(walk.reminded),
        )  # fmt: skip

    def _knows_reply(self, history: History, at: int) -> bool:
        """Whether the next reply behind message `at` was given there."""
        for i, m in enumerate(history.messages[at + 1 :], at + 1):
            if m.role == "assistant":
                place = child_id(history.ids[i], history.contents[i])
                return bool(self._conversations.of(history.thread).samples(place, m))
        return False

    def _with_name(self, m: Message) -> Message:
        """A message without the name that its template would not write."""
        return m if m.name is None or shows_name(m, self._splicer.habits) else replace(m, name=None)

    def _own_replies(
        self, namespace: str, thread: MessageId, messages: tuple[Message, ...]
    ) -> tuple[Message, ...]:
        """The messages with our replies as they were given: a name in one is the client's."""
        if all(m.role != "assistant" or not m.name for m in messages):
            return messages
        given = {r.content for r in self._conversations.of(thread).replies}
        return tuple(
            replace(m, name=None)
            if m.role == "assistant"
            and m.name
            and (content_id(m) in given or self._conversations.called(namespace, m))
            else m
            for m in messages
        )

    def _content(
        self, namespace: str, message: Message, reasonings: Collection[bytes | None]
    ) -> bytes:
        """The content of a message, with its reasoning where a client made that up.

        `reasonings`: those of the conversation's replies; None among them may be any.
        """
        if message.role != "assistant":
            return _plain_content(message)
        called = self._conversations.called(namespace, message)
        if called:
            return called.content
        own = reasoning_id(message)
        is_edited = own and not {own, None} & set(reasonings)
        speaker = b"\1" + message.name.encode("utf-8", "surrogatepass") if message.name else b""
        return content_id(message) + (own if is_edited else b"") + speaker

    def _walk(
        self,
        root: MessageId,
        thread: MessageId,
        namespace: str,
        messages: Sequence[Message],
        contents: Sequence[bytes],
        sticky: bool,
    ) -> _ChainWalk:
        walks = [_ChainWalk([root])]
        for i, (message, content) in enumerate(zip(messages, contents, strict=True)):
            if message.role == "assistant":
                walks = self._behind_reply(walks, thread, namespace, message, content)
                continue
            reminded = list(self._reminded(walks, thread, i, message, content)) if sticky else []
            for walk in walks:
                walk.ids.append(child_id(walk.ids[-1], content) if content else walk.ids[-1])
            walks = [*walks, *reminded][:_MOST_PATHS]
        return next(w for w in walks if not w.is_open)

    def _reminded(
        self, walks: Sequence[_ChainWalk], thread: MessageId, i: int, said: Message, content: bytes
    ) -> Iterator[_ChainWalk]:
        """The paths on which message i was read with a reminder behind it."""
        for walk in walks if said.role == "user" else ():
            for whose, message in self._reminders.of(child_id(walk.ids[-1], content), said):
                if whose == thread:
                    end = child_id(walk.ids[-1], content_id(message))
                    yield _ChainWalk([*walk.ids, end], {**walk.reminded, i: message}, is_open=True)

    def _behind_reply(
        self,
        walks: list[_ChainWalk],
        thread: MessageId,
        namespace: str,
        message: Message,
        content: bytes,
    ) -> list[_ChainWalk]:
        """The paths that go on with a known reply; all of them, where none does."""
        known, conversation = [], self._conversations.of(thread)
        for walk in walks:
            samples = conversation.samples(child_id(walk.ids[-1], content), message)
            known += [(walk, sample) for sample in samples]
        if len(known) == 1:
            walk, sample = known[0]
            walk.ids.append(sample)
            walk.is_open = False
            return [walk]
        if known:
            return [walk.with_reply(sample) for walk, sample in known[:_MOST_PATHS]]
        called = self._conversations.called(namespace, message)
        reasoning = (called and called.reasoning) or reasoning_id(message)
        calls = called.calls if called else ""
        walks = [walk for walk in walks if not walk.is_open]
        for walk in walks:
            walk.ids.append(sample_id(child_id(walk.ids[-1], content), reasoning, calls))
        return walks

    def _root(self, request: Request) -> MessageId:
        tools = json.dumps(tool_dicts(request.tools), sort_keys=True, default=str)
        head = self._head(request.template_args)
        return root_id([tools.encode("utf-8", "surrogatepass"), head, request.namespace.encode()])

    def _head(self, args: Mapping[str, Any]) -> bytes:
        """A small conversation as the template writes it with these arguments, hashed."""
        spelled = json.dumps(dict(args), sort_keys=True, default=str)
        found = self._heads.use(spelled)
        if found is None:
            try:
                text = self._splicer.render(_SMALL, Frame(args=args), scaffold=False)
            except RequestError:
                text = spelled
            found = hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest()
            self._heads.put(spelled, found)
        return found


def _first_user(messages: Sequence[Message]) -> int:
    """The number of the first user message; 0 where there is none."""
    return next((i for i, m in enumerate(messages) if m.role == "user"), 0)


def _plain_content(message: Message) -> bytes:
    """The content of a message as far as it says something."""
    is_empty = message.role == "system" and not without_markers(message.text).strip()
    return b"" if is_empty else content_id(message)
