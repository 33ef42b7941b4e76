"""Which piece on disk stands on which, and what goes first. In memory only; no files.

    root ─ [0, 4096) ─┬─ [4096, 5000) ─ [5000, 8192)        a segment stands on the segment that
                      │       └ checkpoint at 4800          holds the row before its start, a
                      └─ [4096, 4700) ...                   checkpoint on the one that holds its

A piece whose path from the root is not all there is *adrift*: of no use, until what is missing is
written again under the same ids. Live; I/O thread only.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

from everwarm.cache import policy
from everwarm.cache.disk.blob import PieceRecord
from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.places import CELL, Group, Place, cells, needs
from everwarm.cache.doubles import doubles
from everwarm.cache.identity import PositionId, Trail
from everwarm.job import Path

MOST_JOINED: Final = 64 << 20
"""Bytes of one file made of several."""
FEWEST_JOINED: Final = 4
"""Rows are written again for no less than this: the files that go, and what is left in one."""


class Shelf:
    """All pieces on disk."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._groups: dict[tuple[bytes, str], Group] = {}
        self.nbytes = 0
        self.n_adrift = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, file_id: str) -> bool:
        return file_id in self._places

    def get(self, file_id: str) -> Stored:
        return self._places[file_id].stored

    def _group(self, r: PieceRecord) -> Group:
        key = (r.fingerprint, r.namespace)
        if key not in self._groups:
            self._groups[key] = Group(*key)
        return self._groups[key]

    def same(self, r: PieceRecord) -> str | None:
        """The id of a piece that holds exactly this already."""
        for file_id, place in self._group(r).ends.get(r.position, {}).items():
            s = place.stored.record
            if (s.kind, s.start, s.end) == (r.kind, r.start, r.end):
                return file_id
        return None

    def stands_on(self, r: PieceRecord) -> tuple[bool, str | None]:
        """Whether everything above a piece is here, and the piece it stands on, if any."""
        found = self._group(r).support(r)
        if found is None:
            return False, None
        return True, None if found[0] is None else found[0].stored.file_id

    def with_hint(self, stored: Stored) -> Stored:
        """A piece that is about to be added, with what saves the next start a search."""
        found = self._group(stored.record).support(stored.record)
        return replace(stored, within=within(found and found[0], stored.record))

    def add(self, stored: Stored) -> bool:
        """Shelve a piece. False: its ids and tokens do not agree, so it is not what it says."""
        group, place = self._group(stored.record), Place(stored)
        if not self._settle(group, place):
            return False
        self._places[stored.file_id] = place
        self.nbytes += stored.nbytes
        self._carry(group, place)
        return True

    def add_all(self, found: Iterable[Stored]) -> list[str]:
        """Shelve what a start found: as `add`, but each piece is walked once, however many stand on
        it. The ids of those that are refused.
        """
        ordered = sorted(found, key=_parents_first)
        coming: dict[int, list[Stored]] = defaultdict(list)
        for s in ordered:
            coming[id(self._group(s.record))].append(s)
        for group in self._groups.values():
            group.expect(coming[id(group)])
        refused = [s.file_id for s in ordered if not self.add(s)]
        for group in self._groups.values():
            group.expect_no_more()
        self._settle_misled(bool(refused))
        return refused

    def _settle_misled(self, by_refused: bool) -> None:
        """Search without short cuts for what a wrong hint, or a refused piece, has set adrift."""
        for place in sorted(self._places.values(), key=lambda p: _parents_first(p.stored)):
            if place.is_adrift and (by_refused or place.stored.within is not None):
                group = self._group(place.stored.record)
                self._settle(group, place)
                self._carry(group, place)

    @property
    def n_hashed(self) -> int:
        """How often tokens of a piece were hashed to find what stands on it."""
        return sum(g.n_hashed for g in self._groups.values())

    def _settle(self, group: Group, place: Place) -> bool:
        """Find what a piece stands on, or leave it adrift. False: its position's id is wrong."""
        r = place.stored.record
        found = group.support(r, place.stored.within)
        if found is None:
            self._set_adrift(group, place)
            return True
        above, trail = found
        if trail.at == r.start and trail.fork().feed(r.tokens) != r.position:
            return False
        # A checkpoint that was found by its end has no trail at its start: nothing stands on it.
        place.trail = trail if trail.at == r.start else None
        place.above = above
        place.stored = replace(place.stored, within=within(above, r))
        if above is not None:
            above.on_it.add(place.stored.file_id)
        if place.is_adrift:
            place.is_adrift = False
            self.n_adrift -= 1
            group.wait_no_more(place)
        group.put(place)
        return True

    def _set_adrift(self, group: Group, place: Place) -> None:
        if not place.is_adrift:
            place.is_adrift = True
            self.n_adrift += 1
            group.wait(place)

    def _carry(self, group: Group, place: Place) -> None:
        """Let those that waited for a piece stand on it, and those that waited for them."""
        fresh = [] if place.is_adrift else [place]
        while fresh:
            new = fresh.pop()
            near = [p for c in cells(new.stored.record) for p in group.waiting[c].values()]
            for other in near:
                may = needs(other.stored.record)
                if other.is_adrift and any(new.carries(*n) for n in may):
                    self._settle(group, other)
                    if not other.is_adrift:
                        fresh.append(other)

    def remove(self, file_id: str) -> None:
        """Take a piece off; what stood on it finds another place to stand, or is adrift."""
        place = self._places.pop(file_id)
        group = self._group(place.stored.record)
        self.nbytes -= place.stored.nbytes
        if place.is_adrift:
            self.n_adrift -= 1
            group.wait_no_more(place)
            return
        lost = self._cast_off(group, place)[1:]
        if place.above is not None:
            place.above.on_it.discard(file_id)
        for other in lost:
            self._set_adrift(group, other)
        for other in lost:
            if other.is_adrift:
                self._settle(group, other)
                self._carry(group, other)

    def _cast_off(self, group: Group, place: Place) -> list[Place]:
        """Take a piece and all that stands on it out of the group; they, upper ones first."""
        out = [place]
        for p in out:
            out.extend(self._places[x] for x in p.on_it)
            group.take(p)
            p.on_it, p.trail = set(), None
        for p in out[1:]:
            p.above = None
        return out

    def touch(self, file_ids: Iterable[str], used: int) -> list[str]:
        """Note a use; gives back those that are here."""
        return self._change(file_ids, used=used)

    def pin(self, file_ids: Iterable[str], is_pinned: bool) -> list[str]:
        return self._change(file_ids, is_pinned=is_pinned)

    def _change(self, file_ids: Iterable[str], **changes: int) -> list[str]:
        here = [x for x in file_ids if x in self._places]
        for file_id in here:
            place = self._places[file_id]
            place.stored = replace(place.stored, **changes)  # type: ignore[arg-type]
        return here

    def ids(self) -> list[str]:
        return list(self._places)

    def usable(self, fingerprint: bytes) -> list[Stored]:
        """A model's pieces whose whole path is here; what others stand on comes first."""
        out = [
            replace(p.stored, above=None if p.above is None else p.above.stored.file_id)
            for p in self._places.values()
            if p.stored.record.fingerprint == fingerprint and not p.is_adrift
        ]
        return sorted(out, key=lambda s: (s.record.start, s.record.end))

    def on_path(self, path: Path) -> list[str]:
        """Pieces of all models that end on this path, behind what others share with it."""
        ends: dict[bytes, dict[int, list[Stored]]] = defaultdict(lambda: defaultdict(list))
        for place in self._places.values():
            r = place.stored.record
            if r.namespace == path.namespace and path.keep < r.end <= len(path.tokens):
                ends[r.fingerprint][r.end].append(place.stored)
        out: list[str] = []
        for fingerprint, stored in ends.items():
            trail = Trail(fingerprint, path.namespace)
            for end in sorted(stored):
                here = trail.feed(path.tokens[trail.at : end])
                out += [s.file_id for s in stored[end] if s.record.position == here]
        return out

    def with_all_above(self, file_ids: Iterable[str]) -> list[str]:
        """These and every piece that stands on one of them."""
        out = list(dict.fromkeys(file_ids))
        for file_id in out:
            out.extend(x for x in self._places[file_id].on_it if x not in out)
        return out

    def adrift(self) -> list[str]:
        """Pieces of no use now."""
        return [x for x, p in self._places.items() if p.is_adrift]

    def free_to_go(self, file_ids: Iterable[str]) -> list[str]:
        """Of these, lowest first, the pieces on which nothing else stands."""
        out: dict[str, None] = {}
        here = [x for x in set(file_ids) if x in self._places]
        for file_id in sorted(here, key=self._depth, reverse=True):
            if self._places[file_id].on_it <= out.keys():
                out[file_id] = None
        return list(out)

    def runs(self) -> Iterator[list[Stored]]:
        """Small segments of one path and cell that would be better as one, as far as they reach."""
        for place in list(self._places.values()):
            is_rows = place.trail is not None and place.stored.record.kind == "segment"
            if is_rows and not self._continues(place):
                yield from (run for run in self._runs_from(place) if len(run) >= FEWEST_JOINED)

    def _runs_from(self, place: Place) -> Iterator[list[Stored]]:
        """From a piece that continues none. The last run is left where more may come to it."""
        run, nbytes = [place.stored], place.stored.nbytes
        while len(below := self._rows_on(place)) == 1 and self._continues(below[0]):
            place = below[0]
            if nbytes + place.stored.nbytes > MOST_JOINED:
                yield run
                run, nbytes = [], 0
            run.append(place.stored)
            nbytes += place.stored.nbytes
        if below or place.stored.record.end % CELL == 0:
            yield run

    def _continues(self, place: Place) -> bool:
        """Whether a segment alone begins where another ends, in the same cell.

        Behind a system prompt a conversation's own rows begin: they can go, and the prompt stays.
        """
        r, above = place.stored.record, place.above
        if r.start % CELL == 0 or above is None or above.stored.record.kind != "segment":
            return False
        is_next = above.stored.record.end == r.start and above.stored.record.mark != "system"
        return is_next and len(self._rows_on(above)) == 1

    def _rows_on(self, place: Place) -> list[Place]:
        on_it = (self._places[x] for x in place.on_it)
        return [p for p in on_it if p.stored.record.kind == "segment"]

    def doubles(self) -> set[str]:
        """Segments all of whose rows a longer one on the same path holds."""
        rows = [p for p in self._places.values() if p.stored.record.kind == "segment"]
        return doubles(rows)

    def _depth(self, file_id: str) -> int:
        n, place = 0, self._places[file_id].above
        while place is not None:
            n, place = n + 1, place.above
        return n

    def to_free(self, nbytes: int, clock: int, keep: str | None = None) -> list[str] | None:
        """What to let go for so many bytes: least worth per byte, leaves before what they stand on.

        Never pinned pieces, nor `keep` and what it stands on. None: there is not so much.
        """
        left = {x: len(p.on_it) + (x == keep) for x, p in self._places.items()}
        order = {x: n for n, x in enumerate(self._places)}  # of equals, what came first goes first

        def entry(place: Place) -> tuple[float, int, Place]:
            return self._worth(place, clock), order[place.stored.file_id], place

        leaves = [p for x, p in self._places.items() if left[x] == 0]
        heap = [entry(p) for p in leaves if not p.stored.is_pinned]
        heapq.heapify(heap)
        out: list[str] = []
        while nbytes > 0 and heap:
            *_, place = heapq.heappop(heap)
            out.append(place.stored.file_id)
            nbytes -= place.stored.nbytes
            if (up := place.above) is not None:
                left[up.stored.file_id] -= 1
                if left[up.stored.file_id] == 0 and not up.stored.is_pinned:
                    heapq.heappush(heap, entry(up))
        return out if nbytes <= 0 else None

    def _worth(self, place: Place, clock: int) -> float:
        """Of a piece on which nothing stands. Rows behind a model's last checkpoint save nothing,
        but the checkpoint of a segment just written may still be on its way."""
        s, age = place.stored, max(clock - place.stored.used, 0)
        is_tail = s.record.kind == "segment" and self._group(s.record).n_checkpoints > 0
        if place.is_adrift or (is_tail and age > 1):
            return 0.0
        return policy.value(max(s.record.end - s.record.start, 1), s.nbytes, age)


def within(above: Place | None, r: PieceRecord) -> PositionId | None:
    """Where a piece ends that another stands on, if the other leaves it before that."""
    end = above.stored.record.position if above is not None else None
    return end if end not in (r.parent, r.position) else None


def _parents_first(s: Stored) -> tuple[int, bool]:
    return s.record.start, s.record.kind == "checkpoint"


def ranges(start: int, end: int, cap: int = CELL) -> list[tuple[int, int]]:
    """Cut [start, end) at the absolute multiples of `cap`."""
    cuts = [start, *range((start // cap + 1) * cap, end, cap), end]
    return [(a, b) for a, b in pairwise(cuts) if a < b]
