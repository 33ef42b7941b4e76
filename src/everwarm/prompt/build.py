"""Puts one prompt together of what is known and what has to be rendered. See `render.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from everwarm.errors import RequestError
from everwarm.messages import Message, MessageId, Text, ToolCall, child_id
from everwarm.prompt.bounded import Bounded
from everwarm.prompt.chain import History
from everwarm.prompt.conversation import Conversations
from everwarm.prompt.dialects.scan import shared_length
from everwarm.prompt.encoder import EncodedText, TextEncoder
from everwarm.prompt.marks import MessageSpan, inside_last, marks_of, spans_of
from everwarm.prompt.proof import Proof
from everwarm.prompt.splice import Frame, Splicer
from everwarm.prompt.token_records import TokenPath, TokenRecord, TokenRecords, reply_key
from everwarm.replies import Reply
from everwarm.tokens import Tokens

_CLOSING: Final = 24
"""Tokens at the end of a reply in which it may have closed its own sections."""


@dataclass(frozen=True, slots=True)
class PlacedReply:
    """A reply in its place. The history up to the reply `base` takes `base_end` of the tokens."""

    id: MessageId
    place: MessageId
    base: MessageId | None
    base_end: int
    record: TokenRecord
    reply: Reply


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt's tokens. The history up to the reply `base` takes `base_end` of them.

    `rebuilt`: remembered replies that were put behind another history than their own.
    """

    record: TokenRecord
    new_tokens: int
    base: MessageId | None = None
    base_end: int = 0
    rebuilt: tuple[PlacedReply, ...] = ()


@dataclass(slots=True)
class _PartialPrompt:
    """A prompt in the making: `record` ends with reply `k`, or is None at the start.

    `held`: which messages the conversation held before.
    """

    history: History
    frame: Frame
    held: Sequence[bool]
    k: int = -1
    record: TokenRecord | None = None
    new_tokens: int = 0
    rebuilt: list[PlacedReply] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.record.end if self.record else 0

    @property
    def base(self) -> tuple[MessageId | None, int]:
        """The reply with which it ends so far, and where."""
        return (self.history.ids[self.k + 1], self.end) if self.record else (None, 0)

    def n_old(self, spans: Sequence[MessageSpan], stop: int) -> int:
        """How many tokens of what follows, up to message `stop`, the conversation held before.

        A message that was not found stands in the span before it, which is old only if both are.
        Before the first span stands a head, or the end of a turn and what was not found.
        """
        if not spans:
            return 0
        held, nexts = self.held, [*(s.index for s in spans[1:]), stop]
        pairs = zip(spans, nexts, strict=True)
        old = sum(s.end - s.start for s, n in pairs if all(held[s.index : n]))
        lead = all(held[self.k + 1 : spans[0].index + 1]) if self.record else any(held)
        return old + (spans[0].start - self.end if lead else 0)


class Builder:
    """Builds prompts. Live: owned by the render thread."""

    def __init__(
        self,
        splicer: Splicer,
        encoder: TextEncoder,
        records: TokenRecords,
        conversations: Conversations,
        proof: Proof,
    ) -> None:
        self._splicer, self._encoder, self._proof = splicer, encoder, proof
        self._records, self._conversations = records, conversations
        self._scaffolds: Bounded[str, tuple[str, ...]] = Bounded(64)

    def build(
        self, history: History, frame: Frame, held: Sequence[bool], *, verbatim: bool
    ) -> PromptTokens:
        """The prompt of a history. `held`: which of its messages are not new."""
        start = _PartialPrompt(history, frame, held)
        for draft in self._starts(start) if verbatim else ():
            self._put_replies(draft)
            done = self._finish(draft)
            if done:
                return done
        done = self._finish(start)
        assert done is not None, "the whole template gives a text or raises"
        return done

    def _starts(self, start: _PartialPrompt) -> Iterator[_PartialPrompt]:
        """Remembered histories that this one continues, longest first; at last, none."""
        covered = self._proof.covered(start.history.messages)
        for k in range(len(covered) - 1, -1, -1):
            if covered[k]:
                record = self._records.get(reply_key(start.history.ids[k + 1]))
                if record:
                    yield replace(start, k=k, record=record, rebuilt=[])
        yield replace(start, rebuilt=[])

    def _put_replies(self, draft: _PartialPrompt) -> None:
        """Put known replies behind the draft in their places."""
        history, covered = draft.history, self._proof.covered(draft.history.messages)
        if any(covered[draft.k + 1 :]):
            known = self._conversations.aligned(
                history.namespace, history.thread, history.messages, history.contents
            )
            for i, reply in list(known):
                if i > draft.k and covered[i]:
                    self._put(draft, i, reply)

    def _put(self, draft: _PartialPrompt, i: int, reply: Reply) -> None:
        """Render up to message i and put the reply there; nothing where that is not certain."""
        history, frame = draft.history, draft.frame
        tokens = self._said(history.messages[i], reply, history.contents[i])
        asked = replace(frame, args=reply.args) if reply.args != frame.args else frame
        part = self._part(draft, asked, i) if tokens is not None else None
        if part is None or tokens is None:
            return
        record, spans = part
        record = record.extend(tokens)
        if not draft.held[i]:  # given in another conversation: new in this one, with what opens it
            draft.new_tokens += record.end - draft.end - draft.n_old(spans, i)
        elif spans:
            draft.new_tokens += spans[-1].end - draft.end - draft.n_old(spans, i)
        own, content = history.ids[i + 1], history.contents[i]
        if len(tokens) != len(reply.tokens):
            reply = replace(reply, tokens=tokens, content=content, text="")
        place = child_id(history.ids[i], content)
        draft.rebuilt.append(PlacedReply(own, place, *draft.base, record, reply))
        draft.k, draft.record = i, record
        self._records.put(reply_key(own), record)
        self._conversations.of(history.thread).place(place, own, reply)

    def _said(self, message: Message, reply: Reply, content: bytes) -> Tokens[int] | None:
        """The reply's tokens, as far as the message has them."""
        if content == reply.content or message.tool_calls:
            return reply.tokens
        return self._encoder.cut(reply.tokens, reply.text, message.text.strip())

    def _finish(self, draft: _PartialPrompt) -> PromptTokens | None:
        """Render what is left; None where that is not certain."""
        part = self._part(draft, draft.frame, len(draft.history.messages))
        if part is None:
            return None
        record, spans = part
        new = record.end - draft.end - draft.n_old(spans, len(draft.held))
        # In a conversation that is not known all is new, replies from another one among it.
        new = draft.new_tokens + max(0, new) if any(draft.held) else record.end
        return PromptTokens(record, new, *draft.base, tuple(draft.rebuilt))

    def _part(
        self, draft: _PartialPrompt, frame: Frame, stop: int
    ) -> tuple[TokenRecord, list[MessageSpan]] | None:
        """The draft with what the template writes behind it up to message `stop`."""
        messages = draft.history.messages[:stop]
        if draft.record is None:
            text = self._whole(messages, frame, must=stop == len(draft.history.messages))
        else:
            text = self._splicer.behind(messages, draft.k, frame)
            text = text and self._unsaid(text, draft.record)
        if text is None:
            return None
        encoded = self._encoder.encode(text)
        base = draft.record or TokenRecord(TokenPath(), 0)
        end = self._before_scaffold(text, encoded, frame)
        token_at = partial(self._encoder.token_at, encoded)
        spans = spans_of(messages, draft.k + 1, encoded, base.end, end, token_at)
        stop = base.end + len(encoded.tokens)
        inside = inside_last(messages, spans, encoded, base.end)
        marks = marks_of(messages, spans, None if end is None else base.end + end, stop, inside)
        return base.extend(encoded.tokens, marks), spans

    def _unsaid(self, text: str, record: TokenRecord) -> str:
        """What the template writes behind a reply, without what the reply closed by itself.

        … yes <|close|>                        the end of `record`, as the model wrote it
              <|close|> <|end|> <|turn|>user   `text`: goes on from the second token on
        """
        closing = text[: self._splicer.turn_end(text) or 0]
        if not closing.strip():
            return text
        said = self._encoder.text_of(record.path.tokens[max(0, record.end - _CLOSING) : record.end])
        specials = self._encoder.specials_in(closing)
        cuts = {at for _, end in specials for at in (end, *(a for a, _ in specials if a > end))}
        cuts |= {len(closing)} if specials else set()
        for end in sorted(cuts, reverse=True):
            if said.rstrip().endswith(closing[:end].strip()):
                return text[end:]
        return text

    def _whole(self, messages: Sequence[Message], frame: Frame, *, must: bool) -> str | None:
        try:
            return self._splicer.render(messages, frame)
        except RequestError:
            if must:
                raise
            return None

    def _before_scaffold(self, text: str, encoded: EncodedText, frame: Frame) -> int | None:
        """The token before the generation scaffold; at a piece's start where there is any."""
        for scaffold in self._scaffolds_of(frame):
            if text.endswith(scaffold):
                at = len(text) - len(scaffold)
                if not encoded.specials:
                    return self._encoder.token_at(encoded, at)
                return next((t for c, t in encoded.starts if c >= at), None)
        return None

    def _scaffolds_of(self, frame: Frame) -> tuple[str, ...]:
        """What the template writes at the end of a prompt, in several places; longest first."""
        key = json.dumps(dict(frame.args), sort_keys=True, default=str)
        found = self._scaffolds.use(key)
        if found is None:
            asked = Message("user", (Text("u"),))
            calls = Message("assistant", (ToolCall("callx", "look", "{}"),))
            result = Message("tool", (Text("t"),), "callx")
            plain = replace(frame, tools=None)
            made = {self._scaffold(h, plain) for h in ((asked,), (asked, calls, result))}
            found = tuple(sorted(made - {""}, key=len, reverse=True))
            self._scaffolds.put(key, found)
        return found

    def _scaffold(self, messages: Sequence[Message], frame: Frame) -> str:
        try:
            full = self._splicer.render(messages, frame)
            bare = self._splicer.render(messages, frame, scaffold=False)
        except RequestError:
            return ""
        shared = shared_length(full, bare)
        inside = (a for a, b in self._encoder.specials_in(full) if a < shared < b)
        return full[next(inside, shared) :]
