"""A piece on disk and what it stands on; the pieces of one model and namespace. No files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from everwarm.cache.blob import Record
from everwarm.cache.identity import PositionId, Trail
from everwarm.cache.index import Stored

CELL: Final = 4096


@dataclass(eq=False, slots=True)
class Place:
    """A piece and what it stands on (None: the root). `trail` stands at its start. Live."""

    stored: Stored
    trail: Trail | None = None
    above: Place | None = None
    is_adrift: bool = False
    on_it: set[str] = field(default_factory=set)

    def carries(self, position: PositionId, at: int) -> Trail | None:
        """A trail at this position if the token before it is one of this piece's."""
        r = self.stored.record
        if self.trail is None or not r.start < at <= r.end:
            return None
        trail = self.trail.fork()
        return trail if trail.feed(r.tokens[: at - r.start]) == position else None


class Group:
    """The pieces of one model and namespace: those that stand, and those that wait."""

    def __init__(self, fingerprint: bytes, namespace: str) -> None:
        self.root = Trail(fingerprint, namespace)
        self.cells: dict[int, dict[str, Place]] = defaultdict(dict)
        self.ends: dict[PositionId, dict[str, Place]] = defaultdict(dict)
        self.waiting: dict[int, dict[str, Place]] = defaultdict(dict)
        self.n_checkpoints = 0

    def at(self, position: PositionId, at: int, kind: str) -> tuple[Place, Trail] | None:
        """The piece of this kind that carries a position, and a trail there."""
        exact = self.ends.get(position, {})  # nearly always: where a turn ended
        for place in (*exact.values(), *self.cells[(at - 1) // CELL].values()):
            if place.stored.record.kind == kind and (trail := place.carries(position, at)):
                return place, trail
        return None

    def support(self, r: Record) -> tuple[Place | None, Trail] | None:
        """What a piece stands on (None: the root) and a trail there; None: nothing."""
        if r.kind == "checkpoint" and r.end:
            found = self.at(r.position, r.end, "segment")
            if found is not None:
                return found
        if r.start == 0:
            return None, self.root.fork()
        return self.at(r.parent, r.start, "segment") or self.at(r.parent, r.start, "checkpoint")

    def put(self, place: Place) -> None:
        """Enter a piece that stands."""
        r, file_id = place.stored.record, place.stored.file_id
        self.n_checkpoints += r.kind == "checkpoint"
        self.ends[r.position][file_id] = place
        for cell in cells(r):
            self.cells[cell][file_id] = place

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
        """Enter a piece that is adrift under the cells of those that could carry it."""
        for _, at in needs(place.stored.record):
            self.waiting[(at - 1) // CELL][place.stored.file_id] = place

    def wait_no_more(self, place: Place) -> None:
        for _, at in needs(place.stored.record):
            self.waiting[(at - 1) // CELL].pop(place.stored.file_id, None)


def needs(r: Record) -> list[tuple[PositionId, int]]:
    """The positions of which one must be carried by another piece."""
    return [(r.parent, r.start), *([(r.position, r.end)] if r.kind == "checkpoint" else [])]


def cells(r: Record) -> Iterator[int]:
    last = max(r.end - 1, 0)
    return iter(range(min(r.start, last) // CELL, last // CELL + 1))
