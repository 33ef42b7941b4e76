"""Where messages stand in a prompt, in tokens, and which positions are worth a checkpoint.

A message begins at the last special token before the place where its text is found, in order.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from everwarm.messages import Message
from everwarm.prompt.encoder import EncodedText
from everwarm.tokens import Mark

_USERS = 8
NEAR_END = 8
"""The most tokens that are read when a prompt is asked again: a longer end has one more mark."""


@dataclass(frozen=True, slots=True)
class MessageSpan:
    """Message `index` stands in tokens [start, end). `text_end`: the character of the encoded text
    at which what it says ends."""

    index: int
    start: int
    end: int
    text_end: int = 0


def spans_of(
    messages: Sequence[Message],
    first: int,
    encoded: EncodedText,
    base: int,
    end: int | None = None,
    token_at: Callable[[int], int] | None = None,
) -> list[MessageSpan]:
    """The messages from `first` on that are found in the text, whose tokens start at `base`.

    `end`: the token of the text at which the messages end; unset, the last special one. `token_at`
    finds the token at a character, where no special token stands before a message. It is slow, and
    called for the few messages that get a mark.
    """
    text, starts = encoded.text, encoded.starts
    asked = {*_users(messages), _first(messages), len(messages) - 1} if token_at else set[int]()
    found: list[tuple[int, int, int]] = []
    at, piece = 0, 0
    for i in range(first, len(messages)):
        content = messages[i].text.strip()
        here = _find(content, text, at, encoded.specials)
        if here < 0 and content:  # some templates write results as JSON strings
            content = json.dumps(content, ensure_ascii=False)[1:-1]
            here = _find(content, text, at, encoded.specials)
        if here < 0:
            continue
        snapped = None
        while piece < len(starts) and starts[piece][0] < max(here, 1):
            if starts[piece][0] >= at:
                snapped = starts[piece][1]
            piece += 1
        at = here + len(content)
        if snapped is None and token_at and i in asked:
            snapped = token_at(here)
        if snapped is not None:
            found.append((i, base + snapped, at))
    last = base + (end if end is not None else starts[-1][1] if starts else 0)
    stops = [a for _, a, _ in found[1:]] + [max(last, found[-1][1])] if found else []
    return [MessageSpan(i, a, b, text) for (i, a, text), b in zip(found, stops, strict=True)]


def _find(content: str, text: str, at: int, specials: Sequence[tuple[int, int]]) -> int:
    """Where `content` stands from `at` on, never inside a special token's text; or -1."""
    here = text.find(content, at) if content else -1
    while here >= 0:
        before = bisect_left(specials, (here, 0)) - 1
        end = specials[before][1] if before >= 0 else 0
        if end <= here and not _is_part(here, len(content), specials, before + 1):
            return here
        here = text.find(content, max(end, here + 1))
    return -1


def _is_part(here: int, size: int, specials: Sequence[tuple[int, int]], n: int) -> bool:
    """Whether so short a text at a special token's start is only the beginning of it."""
    return n < len(specials) and specials[n][0] == here and here + size < specials[n][1]


def inside_last(
    messages: Sequence[Message], spans: Sequence[MessageSpan], encoded: EncodedText, base: int
) -> int | None:
    """The position before the last token of the last message's text, if a special token ends it.

    A prompt with a longer last message differs from there on: the last token of a text may join
    with what follows it.
    """
    if not spans or spans[-1].index != len(messages) - 1:
        return None
    n = bisect_left(encoded.starts, (spans[-1].text_end, 0))
    inside = base + encoded.starts[n][1] - 1 if n < len(encoded.starts) else 0
    return inside if inside > spans[-1].start else None


def marks_of(
    messages: Sequence[Message],
    spans: Sequence[MessageSpan],
    end: int | None,
    stop: int,
    inside: int | None = None,
) -> list[Mark]:
    """Positions worth a checkpoint in a prompt of `stop` tokens.

    `end`: where the messages end, before the scaffold; None where that is not known. `inside`: see
    `inside_last`.
    """
    first, users = _first(messages), _users(messages)
    marks: dict[int, Mark] = {}
    for s in spans:
        if s.index == len(messages) - 1:
            marks[s.start] = Mark(s.start, "last")
        # Of several system messages one client keeps the first alone when it compacts.
        if s.index in users or s.index < first:
            marks[s.start] = Mark(s.start, "user")
        if s.index == first:
            marks[s.start] = Mark(s.start, "system")
    for at in ends_of(end, stop, inside):
        marks.setdefault(at, Mark(at, "prompt"))
    return sorted((m for m in marks.values() if m.at > 0), key=lambda m: m.at)


def _first(messages: Sequence[Message]) -> int:
    return next((i for i, m in enumerate(messages) if m.role != "system"), -1)


def _users(messages: Sequence[Message]) -> list[int]:
    return [i for i, m in enumerate(messages) if m.role == "user"][-_USERS:]


def ends_of(end: int | None, stop: int, inside: int | None = None) -> list[int]:
    """Where a prompt of `stop` tokens is continued when it is asked again.

        messag ^ es, their end and scaffold: NEAR_END tokens   a longer last message, too
        messages ^ scaffold of at most NEAR_END tokens
        messages ^ longer scaffold …………………… ^ last token      another scaffold may follow the first
        messages, and no scaffold ………………… ^ last token

    A prefill reads the last token by itself, so that a mark before it costs no further step.
    """
    if inside is not None and stop - inside <= NEAR_END:
        return [inside]
    ends = [] if end is None else [end]
    return ends if ends and stop - ends[0] <= NEAR_END else [*ends, stop - 1]
