"""A session: a conversation that the server keeps, as a tree of messages with named branches.

    session ─ m1 (user) ─┬─ m2 (assistant) ─ m3 ─ m4   <- branch "main"
                         └─ m2' (assistant)            <- branch "branch 2"

A message's id is the hash of its parent's id and its content (`messages.child_id`), so the same
message at the same place is there once. Only the message that a branch ends with ever changes.
Not here: SQL, HTTP, tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal

from everwarm.errors import Conflict, NotFound
from everwarm.events import Finish
from everwarm.messages import Message, MessageId, Text, child_id, content_id, root_id

SessionOrigin = Literal["web", "api"]
MAIN = "main"
SUMMARY_LEAD = "Summary of the conversation so far:\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How a session is answered. None: the default of the server or the model."""

    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None
    compact_at: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A message at its place in the tree. `turn`: the record of the turn that wrote it, as JSON.

    `covers`: this entry is a summary, and replaces the history that ends with that message.
    """

    id: MessageId
    parent: MessageId | None
    message: Message
    created: float
    turn: Mapping[str, Any] | None = None
    finish: Finish | None = None
    covers: MessageId | None = None
    n: int = 0
    """The place in the order in which entries were added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation without its messages. Times in unix seconds. `branches`: their last messages.

    `name`: what a client calls it, or its first message's id; empty for those of the web page.
    """

    id: str
    title: str
    created: float
    updated: float
    pinned: bool = False
    origin: SessionOrigin = "web"
    client: str | None = None
    name: str = ""
    choices: Choices = field(default_factory=Choices)
    branch: str = MAIN
    branches: Mapping[str, MessageId | None] = field(default_factory=lambda: {MAIN: None})

    @property
    def head(self) -> MessageId | None:
        """The last message of the present branch."""
        return self.branches[self.branch]

    def moved(self, head: MessageId | None) -> Session:
        """The session with the present branch ending at `head`."""
        return replace(self, branches={**self.branches, self.branch: head})

    def branched(self, head: MessageId | None, name: str | None = None) -> Session:
        """The session with a new branch, now the present one, that ends at `head`."""
        name = name or free_name(self.branches)
        return replace(self, branch=name, branches={**self.branches, name: head})


class Tree:
    """The entries of one session, in the order in which they were added. It never changes."""

    def __init__(self, session_id: str, entries: Iterable[Entry]) -> None:
        self._root = root_id([b"session", session_id.encode()])
        self._entries = {e.id: e for e in sorted(entries, key=lambda e: e.n)}
        self._below: dict[MessageId | None, list[MessageId]] = {}
        for e in self._entries.values():
            self._below.setdefault(e.parent, []).append(e.id)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, message: object) -> bool:
        return message in self._entries

    def __getitem__(self, message: MessageId) -> Entry:
        return self._entries[message]

    def id_of(self, parent: MessageId | None, message: Message) -> MessageId:
        """The id of a message behind `parent`."""
        return child_id(parent or self._root, content_id(message))

    def path(self, head: MessageId | None) -> list[Entry]:
        """The entries from the first message to this one."""
        out: list[Entry] = []
        while head is not None:
            out.append(self._entries[head])
            head = out[-1].parent
        return out[::-1]

    def siblings(self, message: MessageId) -> list[MessageId]:
        """All messages with the same parent, this one among them, in order.

        Summaries are siblings only of each other.
        """
        own = self._entries[message]
        beside = self._below[own.parent]
        return [m for m in beside if bool(self._entries[m].covers) == bool(own.covers)]

    def below(self, message: MessageId) -> list[MessageId]:
        """This message and all that follow it."""
        out = [message]
        for m in out:
            out.extend(self._below.get(m, ()))
        return out

    def newest_end(self, message: MessageId) -> MessageId:
        """The newest leaf of the tree below this message."""
        ends = (m for m in self.below(message) if m not in self._below)
        return max(ends, key=lambda m: self._entries[m].n)

    def is_behind(self, head: MessageId | None, message: MessageId) -> bool:
        """Whether the path to `head` leads through this message."""
        while head is not None and head != message:
            head = self._entries[head].parent
        return head is not None


def ids_of(session_id: str, messages: Iterable[Message]) -> list[MessageId]:
    """The ids of a path of messages in a session."""
    ids: list[MessageId] = []
    parent = root_id([b"session", session_id.encode()])
    for m in messages:
        parent = child_id(parent, content_id(m))
        ids.append(parent)
    return ids


def context_used(path: Sequence[Entry]) -> int | None:
    """Tokens of the context up to the last reply; of a summary only its own count, since its prompt
    is no part of the branch. None where no reply has a record."""
    last = next((e for e in reversed(path) if e.turn), None)
    if last is None or last.turn is None:
        return None
    read = 0 if last.covers else last.turn["prompt_tokens"]
    return int(read + last.turn["completion_tokens"])


def free_name(taken: Iterable[str], base: str = "branch") -> str:
    """The first of `branch 2`, `branch 3`, … that is free."""
    names = set(taken)
    return next(name for n in count(2) if (name := f"{base} {n}") not in names)


def messages_of(choices: Choices, path: Sequence[Entry]) -> tuple[Message, ...]:
    """The messages for the model: system prompt and path; a summary becomes a user's message."""
    head = (Message("system", (Text(choices.system),)),) if choices.system else ()
    return (*head, *(_read_as(e) for e in path))


def _read_as(entry: Entry) -> Message:
    if entry.covers is None:
        return entry.message
    return Message("user", (Text(SUMMARY_LEAD + entry.message.text),))


def new_session_id() -> str:
    return "s" + secrets.token_hex(8)


def title_of(text: str) -> str:
    """A short title made of a message's first words."""
    words = " ".join(text.split())
    return words if len(words) <= 60 else words[:60].rsplit(" ", 1)[0] + "…"


# --- changes that a client asks for; all raise RequestError ---


def entry_of(tree: Tree, message: str, param: str) -> Entry:
    """The message that a client names in `param`. Raises NotFound."""
    if message not in tree:
        raise NotFound("There is no such message.", param=param, code="message_not_found")
    return tree[MessageId(message)]


def select(session: Session, tree: Tree, message: str) -> Session:
    """Make the newest branch through a message the present one."""
    chosen = entry_of(tree, message, "message")
    heads = {h: name for name, h in session.branches.items() if tree.is_behind(h, chosen.id)}
    if session.head in heads:
        return session
    if heads:
        newest = max((h for h in heads if h is not None), key=lambda h: tree[h].n)
        return replace(session, branch=heads[newest])
    return session.moved(tree.newest_end(chosen.id))


def switch(session: Session, branch: str) -> Session:
    """Make another branch the present one."""
    if branch not in session.branches:
        raise NotFound("There is no such branch.", param="branch", code="branch_not_found")
    return replace(session, branch=branch)


def branch_at(session: Session, tree: Tree, at: str, name: str | None) -> Session:
    """Make a new branch that ends with the message `at`."""
    entry = entry_of(tree, at, "at")
    if name is not None and name in session.branches:
        raise Conflict("There is a branch of this name; choose another one.", param="name")
    return session.branched(entry.id, name)
