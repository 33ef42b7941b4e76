"""What was really read: exact tokens of histories.

    path    [ system | user | reply | user | … ]
    record             ^ end: tokens[:end] are this history, word for word

A history that grows in place shares one array with all its earlier records; a branch copies.
Where an earlier message was edited, a history's records are of no use any more, but its replies
are: see `samples.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from everwarm.messages import MessageId
from everwarm.tokens import Mark, Tokens, tokens_of

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class TokenPath:
    """A growing sequence of tokens with the marks of its message starts, ascending."""

    tokens: Tokens[int] = field(default_factory=tokens_of)
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """`path.tokens[:end]` are one history's exact tokens."""

    path: TokenPath
    end: int

    @property
    def tokens(self) -> Tokens[int]:
        """A copy of the history's tokens."""
        return self.path.tokens[: self.end]

    @property
    def marks(self) -> list[Mark]:
        """The marks inside this history."""
        return [m for m in self.path.marks if m.at < self.end]

    def extend(self, tail: Sequence[int], marks: Sequence[Mark] = ()) -> TokenRecord:
        """The history with more tokens behind it: in place where nothing follows yet."""
        path = self.path
        if len(path.tokens) != self.end:
            path = TokenPath(self.tokens, self.marks)
        path.marks = self.marks + [m for m in marks if m.at >= self.end]
        path.tokens.extend(tokens_of(tail))
        return TokenRecord(path, len(path.tokens))


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


class TokenRecords:
    """Records of histories, the least recently used forgotten. Live: the renderer's thread's.

    Bounded by number and by the tokens of all their paths, each counted once.
    """

    def __init__(self, limit: int = 4096, max_tokens: int = 64 * 2**20) -> None:
        self._limit, self._max_tokens = limit, max_tokens
        self._records: OrderedDict[MessageId, TokenRecord] = OrderedDict()
        self._paths: dict[int, tuple[TokenPath, int]] = {}  # by identity: the path, its records

    def __contains__(self, key: MessageId) -> bool:
        return key in self._records

    def get(self, key: MessageId) -> TokenRecord | None:
        """What is remembered, now as the most recent."""
        if key in self._records:
            self._records.move_to_end(key)
        return self._records.get(key)

    def put(self, key: MessageId, record: TokenRecord) -> None:
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

    def _drop(self, path: TokenPath) -> None:
        n = self._paths[id(path)][1] - 1
        if n:
            self._paths[id(path)] = (path, n)
        else:
            del self._paths[id(path)]
