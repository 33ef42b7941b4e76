"""The latest prompts and what they were built of: to remember replies, to explain, and to forget.

A client sends its whole conversation anew with each turn. Messages that two histories of one
conversation share are held once, and all are bounded in characters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from everwarm.messages import Message, MessageId, Reasoning, Text
from everwarm.prompt.bounded import Bounded
from everwarm.prompt.build import PromptTokens
from everwarm.prompt.chain import History
from everwarm.prompt.splice import Frame
from everwarm.request import HistoryMode

_HISTORIES: Final = 256
MAX_CHARS: Final = 32 * 2**20


@dataclass(frozen=True, slots=True)
class BuiltPrompt:
    """A prompt, and what it was built of."""

    history: History
    frame: Frame
    built: PromptTokens
    mode: HistoryMode


class BuiltPrompts:
    """The latest prompts by their heads. Live: owned by the render thread.

    Bounded by number and by the characters of their messages, each counted once.
    """

    def __init__(self, limit: int = _HISTORIES, max_chars: int = MAX_CHARS) -> None:
        self._limit, self._max_chars = limit, max_chars
        self._prompts: OrderedDict[MessageId, BuiltPrompt] = OrderedDict()
        self._latest: Bounded[MessageId, BuiltPrompt] = Bounded(limit)
        self._uses: dict[int, int] = {}
        self.n_chars = 0

    def __iter__(self) -> Iterator[BuiltPrompt]:
        return iter(list(self._prompts.values()))

    def get(self, head: MessageId) -> BuiltPrompt | None:
        """The prompt of this history."""
        return self._prompts.get(head)

    def put(self, asked: BuiltPrompt) -> BuiltPrompt:
        """Keep a prompt; may drop others. Returns it with what it shares with the one before it."""
        self.drop(asked.history.head)
        before = self._latest.use(asked.history.thread)
        if before is not None:
            asked = _sharing(asked, before)
        self._prompts[asked.history.head] = asked
        self._latest.put(asked.history.thread, asked)
        for m in asked.history.messages:
            n = self._uses.get(id(m), 0)
            self._uses[id(m)] = n + 1
            self.n_chars += 0 if n else _n_chars(m)
        while len(self._prompts) > 1 and (
            len(self._prompts) > self._limit or self.n_chars > self._max_chars
        ):
            self.drop(next(iter(self._prompts)))
        return asked

    def drop(self, head: MessageId) -> None:
        """Drop a prompt, if it is here."""
        asked = self._prompts.pop(head, None)
        if asked is None:
            return
        if self._latest.get(asked.history.thread) is asked:
            del self._latest[asked.history.thread]
        for m in asked.history.messages:
            n = self._uses.pop(id(m)) - 1
            if n:
                self._uses[id(m)] = n
            else:
                self.n_chars -= _n_chars(m)


def _sharing(asked: BuiltPrompt, before: BuiltPrompt) -> BuiltPrompt:
    """The prompt with the earlier one's messages and tools where they are equal."""
    old = before.history.messages
    messages = asked.history.messages
    shared = tuple(o if o == m else m for o, m in zip(old, messages, strict=False))
    history = replace(asked.history, messages=shared + messages[len(shared) :])
    same_tools = asked.frame.tools == before.frame.tools
    frame = replace(asked.frame, tools=before.frame.tools) if same_tools else asked.frame
    return replace(asked, history=history, frame=frame)


def _n_chars(message: Message) -> int:
    texts = (p.text if isinstance(p, Text | Reasoning) else p.arguments for p in message.parts)
    return sum(map(len, texts))
