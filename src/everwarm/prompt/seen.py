"""Which messages of a conversation are new in it. Counted for `Prompt.new_tokens`, nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from everwarm.messages import MessageId
from everwarm.prompt.chain import History
from everwarm.prompt.token_records import Bounded


class SeenContents:
    """What each conversation has held: for each content the most times it stood there. Live: owned
    by the render thread."""

    def __init__(self, max_conversations: int) -> None:
        self._known: Bounded[MessageId, Counter[bytes]] = Bounded(max_conversations)

    def note(self, key: MessageId, contents: Sequence[bytes]) -> None:
        """Keep what the conversation holds now."""
        known = self._known.use(key)
        self._known.put(key, (known or Counter()) | Counter(contents))

    def in_history(self, history: History, is_reply: Callable[[MessageId], bool]) -> list[bool]:
        """Whether each message was in the conversation before. Said again is new again.

        `is_reply`: whether a history ends with a reply of this model that is remembered.
        """
        known, counts = self._known.use(history.key) or Counter(), Counter[bytes]()
        seen = []
        for content, end in zip(history.contents, history.ids[1:], strict=True):
            counts[content] += 1
            seen.append(bool(content) and (counts[content] <= known[content] or is_reply(end)))
        return seen

    def forget(self, key: MessageId) -> None:
        """Know nothing of a conversation any more."""
        self._known.pop(key, None)
