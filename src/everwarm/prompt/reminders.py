"""Reminders that a client puts behind a user's message, and takes out again later.

    sent first    Fix the bug.<system-reminder>You are in build mode.</system-reminder>
    sent later    Fix the bug.

Without the reminder, everything behind the message would have to be read again. Where a request
wants sticky reminders, the message stays as it was read if it stands at the same place of the same
chain, with a reply behind it that was given there (`chain.py` decides that). Only whole blocks at
the very end of a user's text count; a changed, added or inner reminder is another text.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from everwarm.messages import Message, MessageId, Text, child_id, content_id, thread_id
from everwarm.prompt.bounded import Bounded
from everwarm.replies import Reminder, ReplyStore

_CLOSE: Final = "</system-reminder>"
_TAG: Final = re.compile("</?system-reminder>")
_MOST_BLOCKS: Final = 4  # that are looked at, from the end of a message
_MOST_ENDS: Final = 4  # that are remembered for one bare history: the latest ones
_MOST_CHARS: Final = 2**16  # of one message's end; a longer one is not remembered
MAX_CHARS: Final = 8 * 2**20


def bare_texts(text: str) -> list[str]:
    """The text without its last reminder, without its last two, and so on; none without any.

    A block reaches back to the tag that opens it, so that one inside another goes with it. A tag
    that nothing opens is text.
    """
    text = text.rstrip()
    if not text.endswith(_CLOSE):
        return []
    tags = list(_TAG.finditer(text))
    bare: list[str] = []
    while len(bare) < _MOST_BLOCKS and tags and tags[-1].end() == len(text):
        start = _last_block(tags)
        if start is None:
            break
        text = text[:start].rstrip()
        bare.append(text)
    return bare


def _last_block(tags: list[re.Match[str]]) -> int | None:
    """Where the block opens that the last tag closes; pops its tags. None: nothing opens it."""
    depth = 0
    while tags:
        tag = tags.pop()
        depth += 1 if tag[0] == _CLOSE else -1
        if depth <= 0:
            return tag.start() if depth == 0 else None
    return None


def bare_messages(message: Message) -> list[tuple[Message, str]]:
    """A user's message without reminders at its end, as in `bare_texts`; and what is cut off."""
    if message.role != "user":
        return []
    text = message.text
    bare_ones = bare_texts(text)
    return [(replace(message, parts=(Text(bare),)), text[len(bare) :]) for bare in bare_ones]


class Reminders:
    """The ends of messages, by the history with the bare message. Live: the render thread's.

    A history's id depends on its root, so that what one caller sent is not found for another, nor
    under other tools. Bounded by number and characters. `store`: where they outlive this process.
    """

    def __init__(
        self, store: ReplyStore | None = None, limit: int = 4096, max_chars: int = MAX_CHARS
    ) -> None:
        self._store, self._limit, self._max_chars = store, limit, max_chars
        self._ends: OrderedDict[MessageId, Bounded[str, MessageId]] = OrderedDict()
        self._noted: Bounded[MessageId, MessageId] = Bounded(2 * limit)
        self._new: Bounded[MessageId, Bounded[MessageId, Reminder]] = Bounded(256)
        self._recalled: Bounded[MessageId, bool] = Bounded(limit)
        self.n_chars = 0

    def note(
        self,
        namespace: str,
        thread: MessageId,
        messages: Sequence[Message],
        ids: Sequence[MessageId],
    ) -> None:
        """Remember the messages of a history that end with reminders. `ids` are `History.ids`."""
        for message, before, end in zip(messages, ids, ids[1:], strict=False):
            if end in self._noted:
                continue
            for bare, text in bare_messages(message):
                if len(text) > _MOST_CHARS:
                    break
                self._noted.put(end, thread)
                at, found_by = child_id(before, content_id(bare)), _bare_thread(namespace, messages)
                made = Reminder(thread=thread, found_by=found_by, bare=at, text=text)
                self._put(made)
                self._new.put(thread, self._new.get(thread) or Bounded(1024))
                self._new[thread].put(at, made)

    def keep(self, thread: MessageId) -> None:
        """Keep what is new in a conversation beyond this process."""
        for made in (self._new.pop(thread, None) or {}).values():
            if self._store is not None:
                self._store.remind(made)

    def recall(self, namespace: str, messages: Sequence[Message]) -> set[MessageId]:
        """Load what is kept of a conversation, once; returns the threads that it was kept under."""
        found_by = _bare_thread(namespace, messages)
        if self._store is None or found_by in self._recalled:
            return set()
        self._recalled.put(found_by, True)
        known = self._store.reminders(found_by)
        for made in known:
            self._put(made)
        return {made.thread for made in known}

    def _put(self, made: Reminder) -> None:
        ends = self._ends.setdefault(made.bare, Bounded(_MOST_ENDS))
        self.n_chars -= _n_chars(ends)
        ends.put(made.text, made.thread)
        self.n_chars += _n_chars(ends)
        self._ends.move_to_end(made.bare)
        while len(self._ends) > 1 and (
            len(self._ends) > self._limit or self.n_chars > self._max_chars
        ):
            self.n_chars -= _n_chars(self._ends.popitem(last=False)[1])

    def of(self, bare: MessageId, message: Message) -> list[tuple[MessageId, Message]]:
        """The message as it was read where this history ends, and its threads; latest first."""
        found = self._ends.get(bare)
        if found is None:
            return []
        self._ends.move_to_end(bare)
        text = message.text.rstrip()
        return [
            (thread, replace(message, parts=(Text(text + end),)))
            for end, thread in reversed(found.items())
        ]

    def forget(self, threads: Collection[MessageId]) -> None:
        """Remember nothing of these conversations."""
        for bare, ends in list(self._ends.items()):
            self.n_chars -= _n_chars(ends)
            for end in [e for e, thread in ends.items() if thread in threads]:
                del ends[end]
            self.n_chars += _n_chars(ends)
            if not ends:
                del self._ends[bare]
        for end in [e for e, thread in self._noted.items() if thread in threads]:
            del self._noted[end]
        for thread in threads:
            self._new.pop(thread, None)


def _n_chars(ends: Collection[str]) -> int:
    return sum(map(len, ends))


def _bare_thread(namespace: str, messages: Sequence[Message]) -> MessageId:
    """The thread that a conversation is without reminders at the end of its first user message."""
    first = next((m for m in messages if m.role == "user"), messages[0])
    bare = bare_messages(first)
    return thread_id(namespace, content_id(bare[-1][0] if bare else first))
