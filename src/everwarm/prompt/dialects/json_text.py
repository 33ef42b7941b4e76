"""Follows JSON and words through a text that arrives in parts, reading no more than it must."""

from __future__ import annotations

import re
from collections.abc import Sequence

_APART = re.compile(r"\s+|(?<=>)(?=<)")


class JsonReader:
    """Follows one JSON object. `at` is how far it was read, `depth` how deep that is."""

    def __init__(self, at: int, depth: int = 0) -> None:
        self.at = at
        self.closed = False
        self._depth = depth
        self._in_string = False
        self._escaped = False

    def advance(self, text: str, ends: Sequence[str]) -> None:
        """Read on, to the object's end or, outside strings, to what may be one of `ends`."""
        firsts = {e[0] for e in ends if e}
        while self.at < len(text) and not self.closed:
            if not self._in_string and text[self.at] in firsts and begins(text, self.at, ends):
                return
            self._read(text[self.at])
            self.at += 1

    def _read(self, c: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped = c == "\\"
            self._in_string = c != '"'
        elif c == '"':
            self._in_string = True
        elif c in "{[":
            self._depth += 1
        elif c in "}]":
            self._depth -= 1
            self.closed = self._depth == 0


def begins(text: str, at: int, words: Sequence[str]) -> bool:
    """Whether one of `words` stands at `at`, or may once more text has come."""
    return any(
        text.startswith(w, at) or (len(text) - at < len(w) and w.startswith(text[at:]))
        for w in words
        if w
    )


def blank_end(text: str, at: int, blanks: str = " \t\r\n") -> int:
    """Where the blanks that begin at `at` end."""
    while at < len(text) and text[at] in blanks:
        at += 1
    return at


def words_of(literal: str) -> list[str]:
    """The words of a template's text: blanks may stand between two of them, and between tags."""
    return [w for w in _APART.split(literal) if w]
