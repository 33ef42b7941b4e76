"""Where a reply stands while it is written: in text, in reasoning, or in a tool call.

Followed in the reply's text as `prompt/parse.py` reads it, not by ids: a marker that is no token of
its own may be cut in several ways.
"""

from __future__ import annotations

from everwarm.codec import Codec
from everwarm.job import Markers


class SectionTracker:
    """Follows one reply. Live: engine thread only. `n_reasoning` counts its tokens of reasoning.

    `tail` is the latest text, from the last marker on.
    """

    def __init__(self, codec: Codec, markers: Markers) -> None:
        self._detokenizer = codec.detokenizer()
        opens, closes = markers.reasoning
        calls = [(m[0], "call") for m in markers.calls]
        self._leave: dict[str, list[tuple[str, str]]] = {
            "text": [(opens, "reasoning"), *calls],
            "reasoning": [(closes, "text")],
            "call": [(m[1], "text") for m in markers.calls if m[1]],
        }
        self._keep = max(len(m) for ms in self._leave.values() for m, _ in ms)
        self._section = "reasoning" if markers.in_reasoning else "text"
        self._opens, self._said = opens, ""
        self.tail = ""
        self.n_reasoning = 0

    @property
    def in_reasoning(self) -> bool:
        return self._section == "reasoning"

    @property
    def may_open(self) -> bool:
        """Whether all that was said may still become the marker that opens reasoning."""
        return self._opens.startswith(self._said.lstrip())

    def take(self, token: int) -> None:
        """Go on by one token."""
        self.n_reasoning += self.in_reasoning
        text = self._detokenizer.add(token)
        self.tail += text
        self._said = (self._said + text)[: len(self._opens) + 1]
        while found := self._next():
            at, marker, self._section = found
            self.tail = self.tail[at + len(marker) :]
        self.tail = self.tail[-self._keep :]

    def _next(self) -> tuple[int, str, str] | None:
        places = ((self.tail.find(m), m, s) for m, s in self._leave[self._section])
        return min((p for p in places if p[0] >= 0), default=None)
