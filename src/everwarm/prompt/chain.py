"""The identity of a conversation: one id for each history in it.

    root -> id of [m0] -> id of [m0, m1] -> …        each from its parent's and its own content

The root hashes what shapes the head besides messages: tools, the caller's namespace, and what the
template's arguments change in a small conversation. An argument that changes the scaffold alone
(thinking on or off) so leaves the history what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everwarm.messages import (
    Message,
    MessageId,
    child_id,
    content_id,
    root_id,
    tidied,
    without_markers,
)
from everwarm.prompt.shape import tool_dicts
from everwarm.prompt.verbatim import Bounded
from everwarm.request import Request, Tool


@dataclass(frozen=True, slots=True)
class History:
    """A request's messages and their ids. `ids[i]` is the history of `i` messages.

    A system message that holds only a marker that moves has no content, and leaves no trace.
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
        called: Callable[[str, Message], bytes | None],
    ) -> None:
        self._head_of, self._called = head_of, called
        self._heads: Bounded[str, bytes] = Bounded(64)

    def history(self, request: Request) -> History:
        """The history that a request brings. A reply known by its calls keeps its own content."""
        messages = tidied(request.messages)
        namespace = request.namespace
        contents = tuple(self._content(namespace, m) for m in messages)
        first = next((i for i, m in enumerate(messages) if m.role == "user"), 0)
        start = contents[first] if contents else b""
        root = self._root(request)
        thread = child_id(root_id([namespace.encode()]), start)
        ids = _chain(root, contents)
        return History(messages, contents, ids, child_id(root, start), thread, namespace)

    def _content(self, namespace: str, message: Message) -> bytes:
        if message.role == "system" and not without_markers(message.text).strip():
            return b""
        return (message.tool_calls and self._called(namespace, message)) or content_id(message)

    def with_tools(self, history: History, request: Request, tools: tuple[Tool, ...]) -> History:
        """The same messages under these tools."""
        root = self._root(replace(request, tools=tools))
        first = next((i for i, m in enumerate(history.messages) if m.role == "user"), 0)
        key = child_id(root, history.contents[first] if history.contents else b"")
        return replace(history, ids=_chain(root, history.contents), key=key)

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


def _chain(root: MessageId, contents: Sequence[bytes]) -> tuple[MessageId, ...]:
    ids = [root]
    for content in contents:
        ids.append(child_id(ids[-1], content) if content else ids[-1])
    return tuple(ids)
