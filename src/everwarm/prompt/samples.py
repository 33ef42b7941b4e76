"""The replies that a conversation's model gave, and which of them a client means.

A client brings a reply back with what it kept of it: the ids of its calls, its reasoning, its text.
Call ids say most; then reasoning, where it is sent; then where the reply stands. Behind an edited
message replies are found in order, by the same: what the model said is read again word for word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from everwarm.messages import Message, MessageId, calls_key, reasoning_id
from everwarm.prompt.token_records import Bounded
from everwarm.replies import Reply

_EACH = 2048  # replies of one conversation
_PLACES = 8192  # of one conversation: without its first ones, a history is not known any more
_SAMPLES = 32  # replies at one place


@dataclass(slots=True)
class _Conversation:
    """Replies by all that tells them apart, and by place and id; the latest ones last."""

    replies: Bounded[tuple[bytes, bytes, int, bytes | None, str], Reply] = field(
        default_factory=lambda: Bounded(_EACH)
    )
    places: Bounded[MessageId, Bounded[MessageId, Reply]] = field(
        default_factory=lambda: Bounded(_PLACES)
    )


class Replies:
    """Replies by call ids and by conversation. Live: owned by the renderer's thread."""

    def __init__(self, conversations: int = 256) -> None:
        self._by_calls: Bounded[tuple[str, str], tuple[MessageId, Reply]]
        self._by_calls = Bounded(conversations * 64)
        self._threads: Bounded[MessageId, _Conversation] = Bounded(conversations)

    def __contains__(self, thread: MessageId) -> bool:
        return thread in self._threads

    def add(self, namespace: str, thread: MessageId, reply: Reply) -> None:
        """Remember a reply of a conversation."""
        self.add_called(namespace, thread, reply)
        known = self._conversation(thread).replies
        known.put((reply.content, reply.before, reply.index, reply.reasoning, reply.calls), reply)

    def add_called(self, namespace: str, thread: MessageId, reply: Reply) -> None:
        """Remember a reply by its calls alone, where the rest of its conversation is not known."""
        if reply.calls:
            self._by_calls.put((namespace, reply.calls), (thread, reply))

    def place(self, thread: MessageId, place: MessageId, id: MessageId, reply: Reply) -> None:
        """Remember that this reply stands there, as the latest."""
        places = self._conversation(thread).places
        if place not in places:
            places.put(place, Bounded(_SAMPLES))
        places[place].put(id, reply)

    def forget(self, thread: MessageId) -> list[MessageId]:
        """Forget a conversation's replies; gives their ids."""
        for key in [k for k, (whose, _) in self._by_calls.items() if whose == thread]:
            del self._by_calls[key]
        gone = self._threads.pop(thread, None)
        return [id for samples in gone.places.values() for id in samples] if gone else []

    def reasonings(self, thread: MessageId) -> set[bytes | None]:
        """The `reasoning_id` of each of a conversation's replies."""
        known = self._threads.use(thread)
        return {r.reasoning for r in known.replies.values()} if known else set()

    def contents(self, thread: MessageId) -> set[bytes]:
        """The `content_id` of each of a conversation's replies."""
        known = self._threads.use(thread)
        return {r.content for r in known.replies.values()} if known else set()

    def called(self, namespace: str, message: Message) -> Reply | None:
        """The reply that made exactly these calls, whatever became of their values.

        None where the message has other reasoning: that is for the model to read.
        """
        if not message.tool_calls:
            return None
        found = self._by_calls.use((namespace, calls_key(message)))
        return found[1] if found and found[1].may_be(reasoning_id(message)) else None

    def samples(self, thread: MessageId, place: MessageId, message: Message) -> Sequence[MessageId]:
        """The ids of the replies there that this message can mean, the latest first."""
        known = self._threads.use(thread)
        there = known.places.use(place) if known else None
        if not there:
            return ()
        calls, reasoning = calls_key(message), reasoning_id(message)
        able = [(id, r) for id, r in reversed(there.items()) if r.may_be(reasoning)]
        own = [id for id, r in able if calls and r.calls == calls]
        return own or [id for id, _ in able]

    def _conversation(self, thread: MessageId) -> _Conversation:
        known = self._threads.use(thread)
        if known is None:
            known = _Conversation()
            self._threads.put(thread, known)
        return known

    def aligned(
        self, namespace: str, thread: MessageId, messages: Sequence[Message], ids: Sequence[bytes]
    ) -> Iterator[tuple[int, Reply]]:
        """Replies of the conversation that these messages repeat, in order; in doubt none.

        `ids` are the messages' content ids. A message that is the beginning of a reply's text, as
        a client has it that stopped listening, comes with the whole reply: compare `content`.
        """
        conversation = self._threads.use(thread)
        known = list(conversation.replies.values()) if conversation else []
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
    if not text:
        return None
    starts = (r for r in known if not r.calls and r.text.startswith(text))
    return _one((r for r in starts if r.before == before), last, before)
