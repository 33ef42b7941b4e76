"""A reply in the making: text that is held back, events to send, and the message so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from everwarm.events import (
    CallDelta,
    CallEnd,
    CallStart,
    Event,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
)
from everwarm.messages import Message, Part, Reasoning, Text, ToolCall


def partial(text: str, markers: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the start of a marker."""
    best = 0
    for marker in markers:
        for n in range(min(len(marker) - 1, len(text)), best, -1):
            if text.endswith(marker[:n]):
                best = n
                break
    return best


_BATCHES = 256
"""A call that is held back is read again when it has grown by one part in so many."""
MOST_BLANKS = 64
"""Blanks that may stand before a call: behind more of them, none is looked for."""


def _first(text: str, markers: Sequence[str]) -> tuple[int, int, str] | None:
    """The first marker in `text`, of several at one place the longest: (at, -length, marker)."""
    return min(((text.find(m), -len(m), m) for m in markers if m and m in text), default=None)


class PartialReply:
    """Live: owned by one parser. `text` has come and is not taken yet.

    `taken` counts the characters that were taken. `gap`: blanks that are held back before a call.
    `final`: no text follows.
    """

    def __init__(self, stop: tuple[str, ...], new_call_id: Callable[[], str]) -> None:
        self._stop, self._new_id = stop, new_call_id
        self.text, self.taken, self.gap, self.final = "", 0, "", False
        self.stopped = False
        self.stop_text: str | None = None
        self.n_calls = 0
        self.events: list[Event] = []
        self.logprobs: list[TokenLogprob] = []
        self._parts: list[Part] = []
        self._kind: type[Text] | type[Reasoning] | None = None
        self._pieces: list[str] = []
        self._waiting: list[str] = []
        self._n_waiting = 0

    @property
    def message(self) -> Message:
        """The reply so far, without what is held back."""
        return Message("assistant", (*self._parts, *self._growing()))

    def add(self, text: str, *, held: bool) -> bool:
        """Add what came of the reply. Whether it is worth reading on.

        `held`: the text belongs to a call, which is told when it is complete. Then it is read in
        batches, which grow with the call, so that a long one is not copied with every token.
        """
        self._waiting.append(text)
        self._n_waiting += len(text)
        if held and not self.final and self._n_waiting * _BATCHES < len(self.text):
            return False
        self.text += "".join(self._waiting)
        self._waiting, self._n_waiting = [], 0
        return True

    @property
    def fresh(self) -> bool:
        """Whether no answer has begun, or none since reasoning or a call."""
        return self._kind is not Text

    @property
    def untold(self) -> bool:
        """Whether nothing was told yet."""
        return not self._parts and self._kind is None

    def take(self, n: int) -> str:
        """Take this many characters of the text."""
        text, self.text = self.text[:n], self.text[n:]
        self.taken += n
        return text

    def say_until(self, markers: Sequence[str], calls: Sequence[str] = ()) -> str | None:
        """Say the text up to the first marker; take and return that. None: there is none yet.

        Blanks before one of `calls` are held back in `gap`. A stop text ends the reply where all of
        it is text to be said: no part of a marker, and no blanks that are held back.
        """
        if self.stopped:
            return None
        known = [m for m in (*markers, *calls) if m]
        begun = len(self.text) - partial(self.text, known)
        at, _, marker = _first(self.text, known) or (len(self.text), 0, "")
        if marker and not self.final and self._may_be_longer(at, marker, known):
            marker = ""
            begun = min(begun, at)
        if not self.final and at > begun:
            at, marker = begun, ""
        body = self.text[:at]
        if marker in calls or (calls and not marker and not self.final):
            body = body.rstrip()
        if not marker and at - len(body) > MOST_BLANKS:
            body = self.text[:at]
        may_stop = len(body) if marker else self._stop_may_begin()
        stop = _first(body, self._stop)
        if stop and stop[0] <= may_stop:
            self.say(self.take(stop[0]))
            self.stopped, self.stop_text = True, stop[2]
            return None
        if not marker:
            self.say(self.take(min(len(body), may_stop)))
            return None
        self.say(self.take(len(body)))
        self.gap = self.take(at - len(body))
        self.take(len(marker))
        return marker

    def _may_be_longer(self, at: int, marker: str, known: Sequence[str]) -> bool:
        """Whether a marker may still turn out to be the beginning of a longer one."""
        rest = self.text[at : at + max(map(len, known))]
        return any(m.startswith(rest) for m in known if len(m) > len(rest) >= len(marker))

    def _stop_may_begin(self) -> int:
        """The first place in the text where a stop text begins, or may turn out to."""
        if self.final:
            return len(self.text)
        whole = _first(self.text, self._stop)
        begun = len(self.text) - partial(self.text, self._stop)
        return min(begun, whole[0]) if whole else begun

    def say(self, text: str) -> None:
        """Add to the answer."""
        if text:
            self.events.append(TextDelta(text, tuple(self.logprobs)))
            self.logprobs.clear()
            self._grow(Text, text)

    def think(self, text: str) -> None:
        """Add to the reasoning."""
        if text:
            self.events.append(ReasoningDelta(text))
            self._grow(Reasoning, text)

    def tell_rest(self, *, is_reasoning: bool) -> None:
        """Add all text that is left."""
        rest = self.take(len(self.text))
        if is_reasoning:
            self.think(rest)
        else:
            self.say(rest)

    def _grow(self, kind: type[Text] | type[Reasoning], text: str) -> None:
        """Add to the last part, or begin another: joined when it is over."""
        if self._kind is not kind:
            self._parts += self._growing()
            self._kind, self._pieces = kind, []
        self._pieces.append(text)

    def _growing(self) -> tuple[Part, ...]:
        """The part that may still grow."""
        return (self._kind("".join(self._pieces)),) if self._kind else ()

    def think_until(self, ends: Sequence[str]) -> str | None:
        """Add the text up to the first of `ends` to the reasoning; take and return that one."""
        found = [(self.text.find(e), e) for e in ends if e in self.text]
        if not found:
            self.think(self.take(len(self.text) - partial(self.text, ends)))
            return None
        at, end = min(found)
        self.think(self.take(at))
        return self.take(len(end))

    def tell_call(self, name: str, arguments: str, carried: str = "") -> None:
        """Add a complete call. `carried`: what its id brings back, see `call_ids`."""
        call = ToolCall(self._new_id() + carried, name, arguments)
        self.events += [
            CallStart(self.n_calls, call.id, name),
            CallDelta(self.n_calls, arguments),
            CallEnd(self.n_calls),
        ]
        self.n_calls += 1
        self._parts += [*self._growing(), call]
        self._kind, self._pieces = None, []
