"""Which piece on disk stands on which, and what is evicted first. In memory only; no files.

    root ─ [0, 4096) ─┬─ [4096, 5000) ─ [5000, 8192)        a segment stands on the segment that
                      │       └ checkpoint at 4800          holds the row before its start, a
                      └─ [4096, 4700) ...                   checkpoint on the one that holds its

A piece is *adrift* where a part of its path from the root is missing. It is of no use until that
part is written again under the same ids. Live; I/O thread only.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from everwarm.cache import policy
from everwarm.cache.disk.blob import PieceRecord
from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.places import Group, Place, cells, needs
from everwarm.cache.identity import PositionId, Trail
from everwarm.job import Path


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
        """Add a piece. False: its ids and tokens do not agree, so it is not what it says."""
        group, place = self._group(stored.record), Place(stored)
        if not self._settle(group, place):
            return False
        self._places[stored.file_id] = place
        self.nbytes += stored.nbytes
        self._carry(group, place)
        return True

    def add_all(self, found: Iterable[Stored]) -> list[str]:
        """Add what a start found; the ids of those that are refused.

        As `add`, but each piece is hashed once, however many stand on it.
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
        """Search again, without short cuts, for what a wrong hint or a refused piece set adrift."""
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
            above.on_it.add(place)
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
        """Settle the pieces that waited for this one, and those that waited for them."""
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

    def drop(self, file_id: str) -> None:
        """Drop a piece. What stood on it now stands on another piece, or is adrift."""
        place = self._places.pop(file_id)
        group = self._group(place.stored.record)
        self.nbytes -= place.stored.nbytes
        if place.is_adrift:
            self.n_adrift -= 1
            group.wait_no_more(place)
            return
        lost = self._loosen(group, place)[1:]
        if place.above is not None:
            place.above.on_it.discard(place)
        for other in lost:
            self._set_adrift(group, other)
        for other in lost:
            if other.is_adrift:
                self._settle(group, other)
                self._carry(group, other)

    def _loosen(self, group: Group, place: Place) -> list[Place]:
        """Take a piece and all that stands on it out of the group; they, upper ones first."""
        out = [place]
        for p in out:
            out.extend(p.on_it)
            group.take(p)
            p.on_it, p.trail = set(), None
        for p in out[1:]:
            p.above = None
        return out

    def touch(self, file_ids: Iterable[str], used: int) -> list[str]:
        """Note a use; which of them are here."""
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

    def rows(self) -> list[Place]:
        """The places of all segments."""
        return [p for p in self._places.values() if p.stored.record.kind == "segment"]

    def pieces(self, fingerprint: bytes) -> list[Stored]:
        """A model's pieces whose whole path is here, parents before children."""
        out = [
            replace(p.stored, above=None if p.above is None else p.above.stored.file_id)
            for p in self._places.values()
            if p.stored.record.fingerprint == fingerprint and not p.is_adrift
        ]
        return sorted(out, key=lambda s: (s.record.start, s.record.end))

    def on_path(self, path: Path) -> list[str]:
        """The pieces of all models that end on this path, behind what it shares with others."""
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
        out = list(dict.fromkeys(self._places[x] for x in file_ids))
        for place in out:
            out.extend(p for p in place.on_it if p not in out)
        return [p.stored.file_id for p in out]

    def adrift(self) -> list[str]:
        """Pieces of no use now."""
        return [x for x, p in self._places.items() if p.is_adrift]

    def deletable(self, file_ids: Iterable[str]) -> list[str]:
        """Of these, lowest first, the pieces on which nothing else stands."""
        out: dict[Place, str] = {}
        here = [self._places[x] for x in set(file_ids) if x in self._places]
        for place in sorted(here, key=Place.depth, reverse=True):
            if place.on_it <= out.keys():
                out[place] = place.stored.file_id
        return list(out.values())

    def to_evict(self, nbytes: int, clock: int, keep: str | None = None) -> list[str] | None:
        """What to delete for so many bytes: the least worth per byte, children before parents.

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
        """What a piece on which nothing stands is worth.

        Rows behind a model's last checkpoint save nothing, unless they were written just now: their
        checkpoint may still be on its way.
        """
        s, age = place.stored, max(clock - place.stored.used, 0)
        is_tail = s.record.kind == "segment" and self._group(s.record).n_checkpoints > 0
        if place.is_adrift or (is_tail and age > 1):
            return 0.0
        return policy.value(max(s.record.end - s.record.start, 1), s.nbytes, age)


def within(above: Place | None, r: PieceRecord) -> PositionId | None:
    """Where the piece above ends, if this one leaves it before that end."""
    end = above.stored.record.position if above is not None else None
    return end if end not in (r.parent, r.position) else None


def _parents_first(s: Stored) -> tuple[int, bool]:
    return s.record.start, s.record.kind == "checkpoint"
