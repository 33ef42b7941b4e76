"""The exact tokens of histories, as the model read and wrote them.

    path    [ system | user | reply | user | … ]
    record             ^ end: tokens[:end] are this history, word for word

A history that grows shares one array with all its earlier records; a branch copies. Behind an
edited message no record fits any more, but the replies do: see `conversation.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from everwarm.messages import MessageId
from everwarm.tokens import Mark, Tokens, tokens_of


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


def reply_key(reply_id: MessageId) -> MessageId:
    """The key of a history that ends with a reply: that of a prompt ends with the scaffold."""
    return MessageId("reply:" + reply_id)


class TokenRecords:
    """Records of histories, by history id or `reply_key`. Live: owned by the render thread.

    Bounded by number and by the tokens of all their paths, each path counted once; the record used
    least recently is dropped first.
    """

    def __init__(self, limit: int = 4096, max_tokens: int = 64 * 2**20) -> None:
        self._limit, self._max_tokens = limit, max_tokens
        self._records: OrderedDict[MessageId, TokenRecord] = OrderedDict()
        self._paths: dict[int, tuple[TokenPath, int]] = {}  # by identity: the path, its records

    def __contains__(self, key: MessageId) -> bool:
        return key in self._records

    def get(self, key: MessageId) -> TokenRecord | None:
        """The record of this key, which becomes the most recent."""
        if key in self._records:
            self._records.move_to_end(key)
        return self._records.get(key)

    def put(self, key: MessageId, record: TokenRecord) -> None:
        """Keep a record; may drop others."""
        self.drop(key)
        self._records[key] = record
        path, n = self._paths.get(id(record.path), (record.path, 0))
        self._paths[id(path)] = (path, n + 1)
        while len(self._records) > 1 and (len(self._records) > self._limit or self._is_full()):
            self.drop(next(iter(self._records)))

    def drop(self, key: MessageId) -> None:
        """Drop a record, if it is here."""
        record = self._records.pop(key, None)
        if record is None:
            return
        path, n = self._paths.pop(id(record.path))
        if n > 1:
            self._paths[id(path)] = (path, n - 1)

    def _is_full(self) -> bool:
        return sum(len(path.tokens) for path, _ in self._paths.values()) > self._max_tokens
