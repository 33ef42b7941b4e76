"""A reply's tokens to events: text, reasoning and tool calls, as early as they are certain.

Text that may still turn out to be part of a marker or of a stop text is held back. A call that
cannot be read becomes text: nothing that the model wrote is lost silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from everwarm.codec import Codec
from everwarm.events import Event, TextDelta, TokenLogprob
from everwarm.job import Token
from everwarm.messages import Message
from everwarm.prompt.dialects import families
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.harmony_reader import HarmonyReader
from everwarm.prompt.dialects.section_reader import SectionReader
from everwarm.prompt.partial_reply import PartialReply
from everwarm.prompt.template_input import tool_dicts
from everwarm.request import Tool


class ReplyParser:
    """Parses one reply. Owned by one caller."""

    def __init__(
        self,
        codec: Codec,
        *,
        tools: Sequence[Tool],
        tools_allowed: bool,
        opens_reasoning: bool,
        stop: tuple[str, ...],
        new_call_id: Callable[[], str],
        raw: bool = False,
    ) -> None:
        """`raw`: all of the reply is text, whatever markers it holds."""
        self._codec, self._detok = codec, codec.detokenizer()
        self._tools = tool_dicts(tools)
        self._draft = PartialReply(stop, new_call_id)
        dialect = Dialect("plain") if raw else families.of(codec)
        known = {t.name: t.parameters or {} for t in tools} if tools and tools_allowed else None
        self._reader: HarmonyReader | SectionReader
        if dialect.name == "harmony":
            self._reader = HarmonyReader(self._draft, known)
        else:
            self._reader = SectionReader(
                dialect, self._draft, known, self._parsed, opens_reasoning=opens_reasoning
            )
        self._seen = 0
        self._ids: list[int] = []
        self._ends: list[int] = []
        self.n_reasoning = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop text ended the reply."""
        return self._draft.stopped

    @property
    def stop_text(self) -> str | None:
        """The stop text that ended the reply."""
        return self._draft.stop_text

    def feed(self, token: Token) -> list[Event]:
        """Take the next token. Returns the events that became certain with it."""
        if self.stopped:
            return []
        text = self._detok.add(token.id)
        self._ids.append(token.id)
        self.n_reasoning += self._reader.mode == "reasoning"
        self._note_logprob(token)
        self._add(text)
        self._ends.append(self._seen)
        return self._drain()

    def finish(self) -> list[Event]:
        """The reply has ended: return what was held back."""
        if not self.stopped:
            self._draft.final = True
            self._add(self._detok.finish())
            self._reader.finish()
        return self._drain()

    @property
    def message(self) -> Message:
        """The reply so far, as its events told it: a call belongs to it once it is complete."""
        return self._draft.message

    @property
    def ids(self) -> list[int]:
        """The tokens to remember. With a stop text, those that end before it."""
        if not self.stopped:
            return list(self._ids)
        ends = self._ends + [self._seen] * (len(self._ids) - len(self._ends))
        taken = self._draft.taken
        return [t for t, end in zip(self._ids, ends, strict=True) if end <= taken]

    @property
    def in_reasoning(self) -> bool:
        """Whether the next token belongs to reasoning."""
        return self._reader.mode == "reasoning"

    @property
    def n_tokens(self) -> int:
        """How many tokens were written, those of a stop text included."""
        return len(self._ids)

    @property
    def has_calls(self) -> bool:
        """Whether the reply holds a tool call."""
        return self._draft.n_calls > 0

    def _add(self, text: str) -> None:
        self._seen += len(text)
        if self._draft.add(text, held=self._reader.mode == "call"):
            while self._reader.step():
                pass

    def _parsed(self, body: str) -> list[dict[str, Any]]:
        try:
            calls = self._codec.parse_calls(body, self._tools)
        except ValueError:
            return []
        return [c for c in calls if c.get("name")]

    def _note_logprob(self, token: Token) -> None:
        if token.logprob is not None:
            top = tuple((i, self._codec.decode([i]), p) for i, p in token.top)
            text = self._codec.decode([token.id])
            self._draft.logprobs.append(TokenLogprob(token.id, text, token.logprob, top))

    def _drain(self) -> list[Event]:
        draft = self._draft
        if draft.logprobs and self._reader.mode == "text":
            draft.events.append(TextDelta("", tuple(draft.logprobs)))
        draft.logprobs.clear()
        out, draft.events = draft.events, []
        return out
