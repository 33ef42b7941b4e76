"""Finds where two texts of a template differ, and cuts them only between markers.

A marker is a control token, a tag, or the beginning of a tag that a slot interrupts:

    <|open|>call tool="look" index="1"<|sep|>        `<|open|>`, `<|sep|>` are markers
    <invoke name="look">                             `<invoke name="look">` is one

Where two texts agree up to the middle of a marker, what they share ends before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from everwarm.prompt.dialects.scan import shared_length


class TemplateMarkers:
    """Finds markers in a template's texts. `specials`: the texts of control tokens."""

    def __init__(self, specials: Sequence[str]) -> None:
        known = sorted((t for t in specials if len(t) > 1 and t.strip()), key=len, reverse=True)
        spelled = [*map(re.escape, known), r"<[^<>]*(?:>|$)", r"\[/?[A-Z][A-Z_]+\]"]
        self._marker = re.compile("|".join(spelled))

    def markers(self, text: str) -> list[tuple[int, int]]:
        """Where markers stand: (start, end)."""
        return [m.span() for m in self._marker.finditer(text)]

    def shared_start(self, a: str, b: str) -> str:
        """What both begin with, up to the first marker that they do not share whole."""
        n = shared_length(a, b)
        for text in (a, b):
            n = min([n, *(s for s, e in self.markers(text) if s < n < e)])
        return a[:n]

    def shared_end(self, a: str, b: str) -> str:
        """What both end with, from the last marker on that they do not share whole."""
        n = shared_length(a[::-1], b[::-1])
        for text in (a, b):
            at = len(text) - n
            n = len(text) - max([at, *(e for s, e in self.markers(text) if s < at < e)])
        return a[len(a) - n :]

    def parted(self, before: str, apart: str, behind: str, section: str) -> tuple[str, str, str]:
        """`apart` in three parts: what also begins `behind`, the rest, what also ends `before`.

        Where the first and the last overlap, the overlap belongs to the first, unless the whole
        `section` begins with it: then it is what things begin with in this notation.
        """
        lead, trail = self.shared_end(before, apart), self.shared_start(apart, behind)
        n = len(lead) + len(trail) - len(apart)
        if n > 0 and lead[:n].strip() and section.startswith(lead[:n].strip()):
            trail = trail[: len(trail) - n]
        elif n > 0:
            lead = lead[n:]
        return trail, apart[len(trail) : len(apart) - len(lead)], lead

    def before(self, text: str, common: str) -> str:
        """A text from its last marker on, or from an earlier one, that is not in `common`."""
        for start, _ in reversed(self.markers(text)):
            unit = text[start:].strip()
            if unit not in common:
                return unit
        return ""

    def behind(self, text: str, opened: str) -> str:
        """The marker at a text's beginning that closes what `opened` opens.

        Where `opened` ends with a separator, such as `<|sep|>`, what closes it does too.
        """
        found = self.markers(text)
        if not found or text[: found[0][0]].strip():
            return ""
        last = opened[self.markers(opened)[-1][0] :] if self.markers(opened) else ""
        ends = [e for s, e in found if text[s:e] == last]
        return text[: ends[0] if ends else found[0][1]].strip()
