"""What was really read and said: exact tokens of histories, and of single replies.

    path    [ system | user | reply | user | … ]
    record             ^ end: tokens[:end] are this history, word for word

A history that grows in place shares one array with all its earlier records; a branch copies.
Where an earlier message was edited, a history's records are of no use any more, but its replies
are: they are found by their calls' ids or by their content, in order, and read again word for word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from everwarm.messages import Message, MessageId, call_key
from everwarm.replies import Reply
from everwarm.tokens import Mark, Tokens, tokens_of

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Path:
    """A growing sequence of tokens with the marks of its message starts, ascending."""

    tokens: Tokens[int] = field(default_factory=tokens_of)
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Record:
    """`path.tokens[:end]` are one history's exact tokens."""

    path: Path
    end: int

    @property
    def tokens(self) -> Tokens[int]:
        """A copy of the history's tokens."""
        return self.path.tokens[: self.end]

    @property
    def marks(self) -> list[Mark]:
        """The marks inside this history."""
        return [m for m in self.path.marks if m.at < self.end]

    def extend(self, tail: Sequence[int], marks: Sequence[Mark] = ()) -> Record:
        """The history with more tokens behind it: in place where nothing follows yet."""
        path = self.path
        if len(path.tokens) != self.end:
            path = Path(self.tokens, self.marks)
        path.marks = self.marks + [m for m in marks if m.at >= self.end]
        path.tokens.extend(tokens_of(tail))
        return Record(path, len(path.tokens))


class Bounded(OrderedDict[K, V]):
    """A dict that forgets what was used least recently."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def put(self, key: K, value: V) -> None:
        """Remember `value`; may forget another."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self.limit:
            self.popitem(last=False)

    def use(self, key: K) -> V | None:
        """What is remembered, now as the most recent."""
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]


class Records:
    """Records of histories, the least recently used forgotten. Live: the renderer's thread's.

    Bounded by number and by the tokens of all their paths, each counted once.
    """

    def __init__(self, limit: int = 4096, max_tokens: int = 64 * 2**20) -> None:
        self._limit, self._max_tokens = limit, max_tokens
        self._records: OrderedDict[MessageId, Record] = OrderedDict()
        self._paths: dict[int, tuple[Path, int]] = {}  # by identity: the path, its records

    def __contains__(self, key: MessageId) -> bool:
        return key in self._records

    def get(self, key: MessageId) -> Record | None:
        """What is remembered, now as the most recent."""
        if key in self._records:
            self._records.move_to_end(key)
        return self._records.get(key)

    def put(self, key: MessageId, record: Record) -> None:
        """Remember a history; may forget others."""
        if key in self._records:
            self._drop(self._records.pop(key).path)
        self._records[key] = record
        path, n = self._paths.get(id(record.path), (record.path, 0))
        self._paths[id(path)] = (path, n + 1)
        while len(self._records) > 1 and (len(self._records) > self._limit or self._is_full()):
            self._drop(self._records.popitem(last=False)[1].path)

    def drop(self, key: MessageId) -> None:
        """Forget a history, if it is here."""
        if key in self._records:
            self._drop(self._records.pop(key).path)

    def _is_full(self) -> bool:
        return sum(len(path.tokens) for path, _ in self._paths.values()) > self._max_tokens

    def _drop(self, path: Path) -> None:
        n = self._paths[id(path)][1] - 1
        if n:
            self._paths[id(path)] = (path, n)
        else:
            del self._paths[id(path)]


class Replies:
    """Replies by call ids and by conversation. Live: owned by the renderer's thread."""

    def __init__(self, conversations: int = 256, each: int = 2048) -> None:
        self._by_calls: Bounded[tuple[str, str], Reply] = Bounded(conversations * 64)
        self._threads: Bounded[MessageId, Bounded[tuple[bytes, bytes, int], Reply]]
        self._threads = Bounded(conversations)
        self._each = each

    def __contains__(self, thread: MessageId) -> bool:
        return thread in self._threads

    def add(self, namespace: str, thread: MessageId, reply: Reply) -> None:
        """Remember a reply of a conversation."""
        if reply.calls:
            self._by_calls.put((namespace, reply.calls), reply)
        known = self._threads.use(thread)
        if known is None:
            known = Bounded(self._each)
            self._threads.put(thread, known)
        known.put((reply.content, reply.before, reply.index), reply)

    def forget(self, thread: MessageId) -> None:
        """Forget a conversation's replies."""
        gone = {id(r) for r in (self._threads.pop(thread, None) or {}).values()}
        for key in [k for k, r in self._by_calls.items() if id(r) in gone]:
            del self._by_calls[key]

    def called(self, namespace: str, message: Message) -> Reply | None:
        """The reply that made exactly these calls, whatever became of their values."""
        return self._by_calls.use((namespace, calls_key(message))) if message.tool_calls else None

    def aligned(
        self, namespace: str, thread: MessageId, messages: Sequence[Message], ids: Sequence[bytes]
    ) -> Iterator[tuple[int, Reply]]:
        """Replies of the conversation that these messages repeat, in order; in doubt none.

        `ids` are the messages' content ids. A message that is the beginning of a reply's text, as
        a client has it that stopped listening, comes with the whole reply: compare `content`.
        """
        known = list((self._threads.use(thread) or {}).values())
        by_content: dict[bytes, list[Reply]] = {}
        for r in known:
            by_content.setdefault(r.content, []).append(r)
        last = -1
        for i, m in enumerate(messages):
            if m.role != "assistant":
                continue
            before = ids[i - 1] if i else b""
            found = self.called(namespace, m)
            if not found and not m.tool_calls:
                found = _one(by_content.get(ids[i], ()), last, before) or _begun(
                    known, m.text.strip(), last, before
                )
            elif not found:
                found = _one(by_content.get(ids[i], ()), last, before)
            if found:
                last = found.index
                yield i, found


def calls_key(message: Message) -> str:
    """The ids of all calls of a message, as clients bring them back."""
    return "/".join(call_key(c.id) for c in message.tool_calls)


def _one(candidates: Iterable[Reply], last: int, before: bytes) -> Reply | None:
    """The one reply that it can be: behind the last one found, else behind the same message."""
    later = [r for r in candidates if r.index > last]
    for some in (later, [r for r in later if r.before == before]):
        if some and all(r.tokens == some[0].tokens for r in some):
            return some[0]
    return None


def _begun(known: Sequence[Reply], text: str, last: int, before: bytes) -> Reply | None:
    if not text:
        return None
    starts = (r for r in known if not r.calls and r.text.startswith(text))
    return _one((r for r in starts if r.before == before), last, before)
