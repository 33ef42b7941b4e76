"""Which segments could go, since a longer one holds all their rows? Pure: nothing is changed here.

    a [0, 10)  b [10, 20)  c [20, 30)          a join made abc of them, and was cut short
    abc [0, 30)                                a, b and c are doubles

Segments that begin at one position are sorted by their tokens, so that one search finds the longer
ones: the cost is linear in their number, but for the sorting.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from everwarm.cache.disk.places import Place
from everwarm.cache.identity import PositionId
from everwarm.tokens import Tokens

TokenRun = tuple[PositionId, "Tokens[int]"]
"""Tokens behind a position."""


def doubles(segments: Sequence[Place]) -> set[str]:
    """The ids of segments all of whose rows a longer one on the same path holds."""
    begin_at: dict[PositionId, list[Tokens[int]]] = defaultdict(list)
    for place in segments:
        begin_at[place.stored.record.parent].append(place.stored.record.tokens)
    for beside in begin_at.values():
        beside.sort()
    inside: dict[str, TokenRun] = {}
    for place in sorted(segments, key=lambda p: p.stored.record.start):
        n = len(place.stored.record.tokens)
        for parent, run in _runs_to(place, inside):
            if _has_longer(begin_at[parent], run, n):
                inside[place.stored.file_id] = parent, run
    return {p.stored.file_id for p in segments if p.trail and p.stored.file_id in inside}


def _runs_to(place: Place, inside: Mapping[str, TokenRun]) -> Iterator[TokenRun]:
    """The tokens up to a segment's end, from where a longer one could begin."""
    r, above = place.stored.record, place.above
    yield r.parent, r.tokens
    if above is None:
        return
    up = above.stored.record
    runs = [(up.parent, up.tokens)]
    if (held := inside.get(above.stored.file_id)) is not None:
        runs.append(held)
    for parent, run in runs:
        yield parent, run[: len(run) - (up.end - r.start)] + r.tokens


def _has_longer(beside: Sequence[Tokens[int]], run: Tokens[int], n: int) -> bool:
    """Whether one of these begins with the run and has more than its last n tokens."""
    find = bisect_right if len(run) == n else bisect_left
    at = find(beside, run)
    return at < len(beside) and beside[at][: len(run)] == run
