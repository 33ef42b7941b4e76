"""Token sequences, and positions in them at which a checkpoint is worth its bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from everwarm.messages import Message, MessageId

# array('i'): 4 bytes a token, comparable and sliceable at memory speed
if TYPE_CHECKING:
    Tokens = array
else:  # `link/` evaluates annotations, and `array` can be subscripted from Python 3.12 on

    class Tokens:
        def __new__(cls, *args: object) -> array:
            return array(*args)

        def __class_getitem__(cls, _: object) -> type[array]:
            return array


MarkKind = Literal["system", "user", "last", "prompt"]
"""`system`: the end of tools and system prompt. `user`: the start of a user message, or of one more
system message in the head. `last`: the start of the request's last message, where that is neither.
`prompt`: the end of the messages, before the generation scaffold; where the scaffold is long or not
known, the place before the last token."""


def tokens_of(ids: Iterable[int] = ()) -> Tokens[int]:
    """Make a token sequence."""
    return array("i", ids)


def common_length(a: Tokens[int], b: Tokens[int], b_from: int = 0) -> int:
    """How many tokens `a` and `b[b_from:]` share from their start. Memory speed, no Python loop."""
    n = min(len(a), len(b) - b_from)
    av, bv = memoryview(a).cast("B"), memoryview(b).cast("B")
    size, base = 4 * n, 4 * b_from
    if bytes(av[:size]) == bytes(bv[base : base + size]):
        return n
    lo, hi = 0, n  # [0, lo) is equal; the first difference is in [lo, hi)
    while hi - lo > 1:
        mid = (lo + hi) // 2
        if bytes(av[4 * lo : 4 * mid]) == bytes(bv[base + 4 * lo : base + 4 * mid]):
            lo = mid
        else:
            hi = mid
    return lo


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in a prompt worth a checkpoint: `at` tokens lie before it."""

    at: int
    kind: MarkKind


@dataclass(frozen=True, slots=True)
class Prompt:
    """The exact token ids that the model will read.

    `tokens` ends with the generation scaffold; it is never changed. `marks` ascend. `new_tokens`
    is the count that `events.TurnRecord` explains. `head` names the history that was rendered, and
    `thread` its conversation, as `replies.Kept` does.
    `opens_reasoning`: the scaffold already opened a reasoning section. `kept_tools`: the request
    brought no tools, so the prompt has the conversation's, and calls are not allowed. `messages`
    are those that it was made of; `reminded` of them keep a reminder that the client took out.
    """

    tokens: Tokens[int]
    marks: tuple[Mark, ...]
    new_tokens: int
    head: MessageId
    opens_reasoning: bool = False
    kept_tools: bool = False
    thread: MessageId | None = None
    reminded: int = 0
    messages: tuple[Message, ...] = ()


def fork_marks(prompt: Prompt) -> tuple[Mark, ...]:
    """The marks of a prompt that gets several replies: the others fork where the first begins."""
    fork = len(prompt.tokens) - 1
    if fork <= max((m.at for m in prompt.marks), default=0):
        return prompt.marks
    return (*prompt.marks, Mark(fork, "prompt"))
