"""The exact tokens of histories that were rendered or generated, and where messages start in them.

    path    [ system | user | reply | user | … ]
    record             ^ end: tokens[:end] are this history, word for word

A history that grows in place shares one array with all its earlier records; a branch copies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

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
