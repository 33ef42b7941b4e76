"""Looks for words and blanks in texts, also in one that arrives in parts."""

from __future__ import annotations

import re
from collections.abc import Sequence

_APART = re.compile(r"\s+|(?<=>)(?=<)")


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


def shared_length(a: str, b: str) -> int:
    """How many characters two texts share from their start."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
