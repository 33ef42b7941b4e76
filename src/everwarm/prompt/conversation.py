"""What is remembered of each conversation, and which of its replies a client means.

A client brings a reply back with what it kept of it: the ids of its calls, its reasoning, its text.
Call ids say most; then reasoning, where it is sent; then where the reply stands. Behind an edited
message replies are found in order, by the same: what the model said is read again word for word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from everwarm.messages import Message, MessageId, calls_key, reasoning_id
from everwarm.prompt.bounded import Bounded
from everwarm.replies import Reply
from everwarm.request import Tool

_REPLIES = 2048  # of one conversation
_PLACES = 8192  # of one conversation: without its first ones, a history is not known any more
_SAMPLES = 32  # replies at one place


@dataclass(slots=True)
class Conversation:
    """One thread: its replies, its time and its tools.

    Live: owned by the render thread. `began`: the time that the template sees. `tools`: the last
    that a request brought. `is_loaded`: what outlived an earlier process is here.
    """

    began: datetime | None = None
    tools: tuple[Tool, ...] = ()
    is_loaded: bool = False
    _replies: Bounded[tuple[bytes, bytes, int, bytes | None, str], Reply] = field(
        default_factory=lambda: Bounded(_REPLIES)
    )
    _places: Bounded[MessageId, Bounded[MessageId, Reply]] = field(
        default_factory=lambda: Bounded(_PLACES)
    )

    def add(self, reply: Reply) -> None:
        """Remember a reply."""
        key = (reply.content, reply.before, reply.index, reply.reasoning, reply.calls)
        self._replies.put(key, reply)

    def place(self, place: MessageId, id: MessageId, reply: Reply) -> None:
        """Remember that this reply stands there, as the latest."""
        if place not in self._places:
            self._places.put(place, Bounded(_SAMPLES))
        self._places[place].put(id, reply)

    def time(self, now: datetime, *, is_new: bool) -> datetime:
        """The time that it began: its date stays, or midnight would change the whole prompt."""
        if self.began is None or (is_new and self.began.date() != now.date()):
            self.began = now
        return self.began

    @property
    def replies(self) -> Collection[Reply]:
        """The replies, the latest ones last."""
        return self._replies.values()

    @property
    def reply_ids(self) -> list[MessageId]:
        """The ids of all replies that stand somewhere."""
        return [id for samples in self._places.values() for id in samples]

    def samples(self, place: MessageId, message: Message) -> Sequence[MessageId]:
        """The ids of the replies there that this message can mean, the latest first."""
        there = self._places.use(place)
        if not there:
            return ()
        calls, reasoning = calls_key(message), reasoning_id(message)
        able = [(id, r) for id, r in reversed(there.items()) if r.may_be(reasoning)]
        own = [id for id, r in able if calls and r.calls == calls]
        return own or [id for id, _ in able]


class Conversations:
    """The conversations used last, and their replies by call ids. Live: the render thread's.

    Those without a reply are counted apart, so that requests which are never answered take no place
    from a conversation that goes on.
    """

    def __init__(self, limit: int = 256) -> None:
        self._threads: Bounded[MessageId, Conversation] = Bounded(limit)
        self._unanswered: Bounded[MessageId, Conversation] = Bounded(limit)
        self._contents: Bounded[MessageId, tuple[MessageId, Counter[bytes]]] = Bounded(limit)
        self._by_calls: Bounded[tuple[str, str], tuple[MessageId, Reply]] = Bounded(limit * 64)

    def of(self, thread: MessageId) -> Conversation:
        """A conversation, which becomes the most recent; a new one where none is known."""
        known = self._threads.use(thread) or self._unanswered.use(thread)
        if known is None:
            known = Conversation()
            self._unanswered.put(thread, known)
        return known

    def add(self, namespace: str, thread: MessageId, reply: Reply) -> None:
        """Remember a reply of a conversation."""
        self.add_called(namespace, thread, reply)
        conversation = self.of(thread)
        conversation.add(reply)
        self._unanswered.pop(thread, None)
        self._threads.put(thread, conversation)

    def add_called(self, namespace: str, thread: MessageId, reply: Reply) -> None:
        """Remember a reply by its calls alone, where the rest of its conversation is not known."""
        if reply.calls:
            self._by_calls.put((namespace, reply.calls), (thread, reply))

    def called(self, namespace: str, message: Message) -> Reply | None:
        """The reply that made exactly these calls, whatever became of their values.

        None where the message has other reasoning: that is for the model to read.
        """
        if not message.tool_calls:
            return None
        found = self._by_calls.use((namespace, calls_key(message)))
        return found[1] if found and found[1].may_be(reasoning_id(message)) else None

    def forget(self, thread: MessageId) -> list[MessageId]:
        """Forget a conversation; gives the ids of its replies."""
        for key in [k for k, (whose, _) in self._by_calls.items() if whose == thread]:
            del self._by_calls[key]
        for head in [h for h, (whose, _) in self._contents.items() if whose == thread]:
            del self._contents[head]
        self._unanswered.pop(thread, None)
        gone = self._threads.pop(thread, None)
        return gone.reply_ids if gone else []

    def hold(self, thread: MessageId, head: MessageId, contents: Sequence[bytes]) -> None:
        """Remember the contents that a conversation holds now under this head (`History.key`)."""
        _, known = self._contents.use(head) or (thread, Counter())
        self._contents.put(head, (thread, known | Counter(contents)))

    def held(
        self,
        head: MessageId,
        contents: Sequence[bytes],
        ends: Sequence[MessageId],
        is_reply: Callable[[MessageId], bool],
    ) -> list[bool]:
        """Whether each message was in the conversation before. Said once more, it is new again.

        `ends`: the history up to each message. `is_reply`: whether a history ends with a reply of
        this model that is remembered.
        """
        _, known = self._contents.use(head) or (head, Counter[bytes]())
        counts, found = Counter[bytes](), []
        for content, end in zip(contents, ends, strict=True):
            counts[content] += 1
            found.append(bool(content) and (counts[content] <= known[content] or is_reply(end)))
        return found

    def aligned(
        self, namespace: str, thread: MessageId, messages: Sequence[Message], ids: Sequence[bytes]
    ) -> Iterator[tuple[int, Reply]]:
        """Replies of the conversation that these messages repeat, in order; in doubt none.

        `ids` are the messages' content ids. A message that is the beginning of a reply's text, as
        a client has it that stopped listening, comes with the whole reply: compare `content`.
        """
        known = self.of(thread).replies
        by_content: dict[bytes, list[Reply]] = {}
        for r in known:
            by_content.setdefault(r.content, []).append(r)
        last = -1
        for i, m in enumerate(messages):
            if m.role != "assistant":
                continue
            before, own = ids[i - 1] if i else b"", reasoning_id(m)
            found = self.called(namespace, m)
            if not found:
                found = _one((r for r in by_content.get(ids[i], ()) if r.may_be(own)), last, before)
            if not found and not m.tool_calls:
                able = (r for r in known if r.may_be(own))
                found = _begun(able, m.text.strip(), last, before)
            if found:
                last = found.index
                yield i, found


def _one(candidates: Iterable[Reply], last: int, before: bytes) -> Reply | None:
    """The one reply that it can be: behind the last one found, else behind the same message.

    Of several samples of one prompt that say the same, the latest.
    """
    later = {(r.content, r.before, r.index): r for r in candidates if r.index > last}.values()
    for some in (list(later), [r for r in later if r.before == before]):
        if some and all(r.tokens == some[0].tokens for r in some):
            return some[0]
    return None


def _begun(known: Iterable[Reply], text: str, last: int, before: bytes) -> Reply | None:
    """The one reply whose text begins so."""
    if not text:
        return None
    starts = (r for r in known if not r.calls and r.text.startswith(text))
    return _one((r for r in starts if r.before == before), last, before)
