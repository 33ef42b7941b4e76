"""A piece on disk and what it stands on; the pieces of one model and namespace. No files."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from everwarm.cache.disk.blob import PieceRecord
from everwarm.cache.disk.index import Stored
from everwarm.cache.identity import PositionId, Trail

CELL: Final = 4096


@dataclass(eq=False, slots=True)
class Place:
    """A piece, the piece above that it stands on (None: the root), and the pieces on it. Live.

    `trail` stands at the piece's start.
    """

    stored: Stored
    trail: Trail | None = None
    above: Place | None = None
    is_adrift: bool = False
    on_it: set[Place] = field(default_factory=set)

    def depth(self) -> int:
        """How many pieces there are between this one and the root."""
        n, place = 0, self.above
        while place is not None:
            n, place = n + 1, place.above
        return n

    def rows_on(self) -> list[Place]:
        """The segments that stand on this piece."""
        return [p for p in self.on_it if p.stored.record.kind == "segment"]

    def has(self, at: int) -> bool:
        """Whether the token before a position is one of this piece's, if both lie on one path."""
        r = self.stored.record
        return self.trail is not None and r.start < at <= r.end

    def carries(self, position: PositionId, at: int) -> Trail | None:
        """A trail at this position if the token before it is one of this piece's."""
        r = self.stored.record
        if not self.has(at):
            return None
        assert self.trail is not None
        trail = self.trail.fork()
        return trail if trail.feed(r.tokens[: at - r.start]) == position else None


class Group:
    """The pieces of one model and namespace: those whose path is here, and those that wait for it.

    A position is mostly where a piece ends, or where the index knew one to carry it. Otherwise it
    lies inside a piece, and the pieces around it are hashed up to it. When many pieces come at
    once, as at a start without an index, all their positions are *expected*, so that each piece is
    hashed only once, and each expected position inside it is found on the way:

        pieces      [0, ── 500 ──── 600)  [0, ── 500 ────── 700)
        expected           ^ id                  ^ id
    """

    def __init__(self, fingerprint: bytes, namespace: str) -> None:
        self.root = Trail(fingerprint, namespace)
        self.cells: dict[int, dict[str, Place]] = defaultdict(dict)
        self.ends: dict[PositionId, dict[str, Place]] = defaultdict(dict)
        self.waiting: dict[int, dict[str, Place]] = defaultdict(dict)
        self.n_checkpoints = 0
        self.n_hashed = 0
        self._expected: set[PositionId] = set()
        self._sought: dict[int, list[int]] = {}
        self._inside: dict[PositionId, list[Place]] = {}

    def expect(self, coming: Sequence[Stored]) -> None:
        """Say which pieces will be added next, each after those that it needs."""
        ends = {s.record.position for s in coming if s.record.start < s.record.end}
        sought: dict[int, set[int]] = defaultdict(set)
        for s in coming:
            for position, at in needs(s.record):
                self._expected.add(position)
                if at and position not in ends and s.within not in ends:
                    sought[(at - 1) // CELL].add(at)
        self._sought = {cell: sorted(at) for cell, at in sought.items()}

    def expect_no_more(self) -> None:
        self._expected, self._sought, self._inside = set(), {}, {}

    def at(
        self, position: PositionId, at: int, kind: str, within: PositionId | None
    ) -> tuple[Place, Trail] | None:
        """The piece of this kind that carries a position, and a trail there."""
        for place in self._near(position, at, within):
            if place.stored.record.kind == kind and (trail := self._carried(place, position, at)):
                return place, trail
        return None

    def _near(self, position: PositionId, at: int, within: PositionId | None) -> Iterator[Place]:
        """The pieces that may carry a position."""
        yield from self.ends.get(position, {}).values()  # nearly always: where a turn ended
        if within is not None:
            yield from self.ends.get(within, {}).values()
        if position in self._expected:
            yield from self._inside.get(position, ())
        else:
            yield from self.cells[(at - 1) // CELL].values()

    def _carried(self, place: Place, position: PositionId, at: int) -> Trail | None:
        self.n_hashed += place.has(at)
        return place.carries(position, at)

    def _look_inside(self, place: Place) -> None:
        """Note the expected positions within a piece."""
        r = place.stored.record
        sought: list[int] = []
        for row in (self._sought.get(cell, []) for cell in cells(r)):
            sought += row[bisect_right(row, r.start) : bisect_right(row, r.end)]
        if not sought or place.trail is None:
            return
        self.n_hashed += 1
        for position in place.trail.fork().feed_to(r.tokens, sought):
            if position in self._expected:
                self._inside.setdefault(position, []).append(place)

    def support(
        self, r: PieceRecord, within: PositionId | None = None
    ) -> tuple[Place | None, Trail] | None:
        """What a piece stands on (None: the root) and a trail there; None: nothing."""
        if r.kind == "checkpoint" and r.end:
            found = self.at(r.position, r.end, "segment", within)
            if found is not None:
                return found
        if r.start == 0:
            return None, self.root.fork()
        for kind in ("segment", "checkpoint"):
            if (found := self.at(r.parent, r.start, kind, within)) is not None:
                return found
        return None

    def put(self, place: Place) -> None:
        """Enter a piece that stands."""
        r, file_id = place.stored.record, place.stored.file_id
        self.n_checkpoints += r.kind == "checkpoint"
        self.ends[r.position][file_id] = place
        for cell in cells(r):
            self.cells[cell][file_id] = place
        self._look_inside(place)

    def take(self, place: Place) -> None:
        """Undo `put`."""
        r, file_id = place.stored.record, place.stored.file_id
        self.n_checkpoints -= r.kind == "checkpoint"
        del self.ends[r.position][file_id]
        if not self.ends[r.position]:
            del self.ends[r.position]
        for cell in cells(r):
            del self.cells[cell][file_id]

    def wait(self, place: Place) -> None:
        """Note a piece that is adrift under the cells of those that could carry it."""
        for _, at in needs(place.stored.record):
            self.waiting[(at - 1) // CELL][place.stored.file_id] = place

    def wait_no_more(self, place: Place) -> None:
        for _, at in needs(place.stored.record):
            self.waiting[(at - 1) // CELL].pop(place.stored.file_id, None)


def needs(r: PieceRecord) -> list[tuple[PositionId, int]]:
    """The positions of which one must be carried by another piece."""
    return [(r.parent, r.start), *([(r.position, r.end)] if r.kind == "checkpoint" else [])]


def cells(r: PieceRecord) -> Iterator[int]:
    last = max(r.end - 1, 0)
    return iter(range(min(r.start, last) // CELL, last // CELL + 1))
