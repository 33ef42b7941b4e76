"""The identity of a conversation: one id for each history in it.

    root -> id of [m0] -> id of [m0, m1] -> …        each from its parent's and its own content

The root hashes what shapes the head besides messages: tools, the caller's namespace, and what the
template's arguments change in a small conversation. An argument that changes the scaffold alone
(thinking on or off) so leaves the history what it is.

A reply of the model is one of the samples at its place (`replies.py`): which, its call ids and its
reasoning tell. Where the client sends neither, it is the one that the conversation went on with:

    u1 ─┬─ "Sure." (A) ── u2 ── "Done."     sent: u1, "Sure.", u2, "Done.", u3   ->  A
        └─ "Sure." (B)                      sent: u1, "Sure.", u3                ->  B, the latest
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everwarm.messages import (
    Message,
    MessageId,
    child_id,
    content_id,
    reasoning_id,
    root_id,
    tidied,
    without_markers,
)
from everwarm.prompt.samples import Replies
from everwarm.prompt.shape import Habits, shows_name, tool_dicts
from everwarm.prompt.verbatim import Bounded
from everwarm.replies import sample_id
from everwarm.request import Request

_MOST_PATHS = 8
"""How many ways through a history are followed at once, where samples cannot be told apart."""


@dataclass(frozen=True, slots=True)
class History:
    """A request's messages and their ids. `ids[i]` is the history of `i` messages.

    A system message that holds only a marker that moves has no content, and leaves no trace. The
    content of a reply holds its reasoning only where a client made that up.
    `key`: the conversation by root and first user message. `thread`: by the latter alone, so that
    it survives other tools and another system prompt.
    """

    messages: tuple[Message, ...]
    contents: tuple[bytes, ...]
    ids: tuple[MessageId, ...]
    key: MessageId
    thread: MessageId
    namespace: str

    @property
    def head(self) -> MessageId:
        """The id of the whole history."""
        return self.ids[-1]


class Chains:
    """Makes histories of requests. Live: owned by the renderer's thread."""

    def __init__(
        self,
        head_of: Callable[[Mapping[str, Any]], str],
        replies: Replies,
        habits: Habits,
    ) -> None:
        self._head_of, self._replies, self._habits = head_of, replies, habits
        self._heads: Bounded[str, bytes] = Bounded(64)

    def history(self, request: Request) -> History:
        """The history that a request brings. A reply known by its calls keeps its own content."""
        messages = tuple(map(self._with_name, tidied(request.messages)))
        namespace = request.namespace
        first = next((m for m in messages if m.role == "user"), messages[0] if messages else None)
        start = _plain_content(first) if first else b""
        root = self._root(request)
        thread = child_id(root_id([namespace.encode()]), start)
        messages = self._own_replies(namespace, thread, messages)
        reasonings = self._replies.reasonings(thread)
        contents = tuple(self._content(namespace, m, reasonings) for m in messages)
        ids = self._ids(root, thread, namespace, messages, contents)
        return History(messages, contents, ids, child_id(root, start), thread, namespace)

    def _with_name(self, m: Message) -> Message:
        """A message without the name that its template would not write."""
        return m if m.name is None or shows_name(m, self._habits) else replace(m, name=None)

    def _own_replies(
        self, namespace: str, thread: MessageId, messages: tuple[Message, ...]
    ) -> tuple[Message, ...]:
        """Our replies as they were given: a name was put there by the client."""
        if all(m.role != "assistant" or not m.name for m in messages):
            return messages
        given = self._replies.contents(thread)
        return tuple(
            replace(m, name=None)
            if m.role == "assistant"
            and m.name
            and (content_id(m) in given or self._replies.called(namespace, m))
            else m
            for m in messages
        )

    def _content(
        self, namespace: str, message: Message, reasonings: Collection[bytes | None]
    ) -> bytes:
        """With reasoning that is none of `reasonings`, the conversation's replies', the client's
        own words. None among those may be any."""
        if message.role != "assistant":
            return _plain_content(message)
        called = self._replies.called(namespace, message)
        if called:
            return called.content
        own = reasoning_id(message)
        is_edited = own and not {own, None} & set(reasonings)
        speaker = b"\1" + message.name.encode("utf-8", "surrogatepass") if message.name else b""
        return content_id(message) + (own if is_edited else b"") + speaker

    def _ids(
        self,
        root: MessageId,
        thread: MessageId,
        namespace: str,
        messages: Sequence[Message],
        contents: Sequence[bytes],
    ) -> tuple[MessageId, ...]:
        paths = [[root]]
        for message, content in zip(messages, contents, strict=True):
            if message.role == "assistant":
                paths = self._through(paths, thread, namespace, message, content)
                continue
            for path in paths:
                path.append(child_id(path[-1], content) if content else path[-1])
        return tuple(paths[0])

    def _through(
        self,
        paths: list[list[MessageId]],
        thread: MessageId,
        namespace: str,
        message: Message,
        content: bytes,
    ) -> list[list[MessageId]]:
        """The paths that go on with a reply that is known; all of them, where none does."""
        known = []
        for path in paths:
            samples = self._replies.samples(thread, child_id(path[-1], content), message)
            known += [(path, sample) for sample in samples]
        if len(known) == 1:
            path, sample = known[0]
            path.append(sample)
            return [path]
        if known:
            return [[*path, sample] for path, sample in known[:_MOST_PATHS]]
        called = self._replies.called(namespace, message)
        reasoning = (called and called.reasoning) or reasoning_id(message)
        calls = called.calls if called else ""
        for path in paths:
            path.append(sample_id(child_id(path[-1], content), reasoning, calls))
        return paths

    def _root(self, request: Request) -> MessageId:
        tools = json.dumps(tool_dicts(request.tools), sort_keys=True, default=str)
        head = self._head(request.template_args)
        return root_id([tools.encode("utf-8", "surrogatepass"), head, request.namespace.encode()])

    def _head(self, args: Mapping[str, Any]) -> bytes:
        """What the arguments change in the text before a reply, hashed."""
        spelled = json.dumps(dict(args), sort_keys=True, default=str)
        found = self._heads.use(spelled)
        if found is None:
            found = hashlib.blake2b(self._head_of(args).encode("utf-8", "surrogatepass")).digest()
            self._heads.put(spelled, found)
        return found


def _plain_content(message: Message) -> bytes:
    """The content of a message as far as it says something."""
    is_empty = message.role == "system" and not without_markers(message.text).strip()
    return b"" if is_empty else content_id(message)
