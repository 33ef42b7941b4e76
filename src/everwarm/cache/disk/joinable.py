"""Which small segments should be joined, and which are doubles of a joined one? Pure.

    a [0, 10)  b [10, 20)  c [20, 30)          a join made abc of them, and was cut short
    abc [0, 30)                                a, b and c are doubles

Segments that begin at one position are sorted by their tokens, so that one search finds the longer
ones: the cost is linear in their number, but for the sorting.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.places import CELL, Place
from everwarm.cache.identity import PositionId
from everwarm.tokens import Tokens

MOST_JOINED: Final = 64 << 20
"""Bytes of one file made of several."""
FEWEST_JOINED: Final = 4
"""Fewer files than this are not worth writing their rows again."""
TokenRun = tuple[PositionId, "Tokens[int]"]
"""Tokens behind a position."""


def runs(segments: Sequence[Place]) -> Iterator[list[Stored]]:
    """Small segments of one path and cell that would be better as one, as far as they reach."""
    for place in segments:
        if place.trail is not None and not _continues(place):
            yield from (run for run in _runs_from(place) if len(run) >= FEWEST_JOINED)


def _runs_from(place: Place) -> Iterator[list[Stored]]:
    """From a piece that continues none. The last run is left where more may come to it."""
    run, nbytes = [place.stored], place.stored.nbytes
    while len(below := place.rows_on()) == 1 and _continues(below[0]):
        place = below[0]
        if nbytes + place.stored.nbytes > MOST_JOINED:
            yield run
            run, nbytes = [], 0
        run.append(place.stored)
        nbytes += place.stored.nbytes
    if below or place.stored.record.end % CELL == 0:
        yield run


def _continues(place: Place) -> bool:
    """Whether a segment alone begins where another ends, in the same cell.

    Behind a system prompt a conversation's own rows begin: they can be deleted without the prompt.
    """
    r, above = place.stored.record, place.above
    if r.start % CELL == 0 or above is None or above.stored.record.kind != "segment":
        return False
    is_next = above.stored.record.end == r.start and above.stored.record.mark != "system"
    return is_next and len(above.rows_on()) == 1


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
    starts = [(up.parent, up.tokens)]
    if (held := inside.get(above.stored.file_id)) is not None:
        starts.append(held)
    for parent, run in starts:
        yield parent, run[: len(run) - (up.end - r.start)] + r.tokens


def _has_longer(beside: Sequence[Tokens[int]], run: Tokens[int], n: int) -> bool:
    """Whether one of these begins with the run and has more than its last n tokens."""
    find = bisect_right if len(run) == n else bisect_left
    at = find(beside, run)
    return at < len(beside) and beside[at][: len(run)] == run
