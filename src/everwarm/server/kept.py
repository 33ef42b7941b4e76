"""Conversations that a client continues by an answer's id, without sending them again.

In memory, bounded, gone with the server: a client that wants more sends its history itself.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from everwarm.errors import RequestError
from everwarm.messages import Message, Reasoning, Text, ToolCall

MAX_ANSWERS: Final = 1000
MAX_CHARACTERS: Final = 64 * 2**20


@dataclass(slots=True)
class Kept:
    """The latest conversations by namespace and answer. Live: event loop only."""

    max_answers: int = MAX_ANSWERS
    max_characters: int = MAX_CHARACTERS
    _held: OrderedDict[tuple[str, str], tuple[Message, ...]] = field(default_factory=OrderedDict)
    _characters: int = 0

    def put(self, namespace: str, answer_id: str, messages: tuple[Message, ...]) -> None:
        """Keep a conversation with its reply; the oldest ones make room."""
        self._held[namespace, answer_id] = messages
        self._characters += _length(messages)
        while self._held and (
            len(self._held) > self.max_answers or self._characters > self.max_characters
        ):
            _, old = self._held.popitem(last=False)
            self._characters -= _length(old)

    def get(self, namespace: str, answer_id: str) -> tuple[Message, ...]:
        """The conversation up to and with this answer. Raises RequestError where it is gone."""
        found = self._held.get((namespace, answer_id))
        if found is None:
            raise RequestError(
                "previous_response_id: no such answer is kept here (answers are kept in memory, "
                f"the latest {self.max_answers:,}). Send the whole conversation.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return found


def _length(messages: tuple[Message, ...]) -> int:
    return sum(_characters(p) for m in messages for p in m.parts)


def _characters(part: Text | Reasoning | ToolCall) -> int:
    return len(part.arguments if isinstance(part, ToolCall) else part.text)
