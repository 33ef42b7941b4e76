"""Everything that one model holds in memory, under one budget. Engine thread only.

    budget  |-- states, busy ones as they may grow --|-- pieces --|-- on their way --|-- free --|

The sum never exceeds the budget. Whoever is about to allocate asks `make_room` first, which drops
the least valuable, and refuses before it drops anything in vain. On their way (in flight) are bytes
of files that were read and not taken over yet, and copies that wait to be written; room for one
copy is always counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from everwarm.cache import tree
from everwarm.cache.disk.tier import DiskTier
from everwarm.cache.evict import Candidate, candidates, is_held, pinned
from everwarm.cache.store import OnDisk, Piece
from everwarm.cache.tree import Holder, Node, Segment


@dataclass(frozen=True, slots=True)
class Account:
    """Bytes in memory, each counted once. `promised`: what busy states may still grow by."""

    states: int
    promised: int
    pieces: int
    in_flight: int

    @property
    def nbytes(self) -> int:
        """What is held: by states and by resting pieces."""
        return self.states + self.pieces

    @property
    def total(self) -> int:
        return self.states + self.promised + self.pieces + self.in_flight


class Memory:
    """Trees, states and their account. `clock` counts requests."""

    def __init__(self, budget: int, *, is_cuttable: bool, tier: DiskTier | None) -> None:
        self.budget = budget
        self.is_cuttable = is_cuttable
        self.tier = tier
        self.roots: dict[str, Node] = {}
        self.states: list[Holder] = []
        self.clock = 0
        # An upper bound, made exact by a walk where it reaches the budget: a hit walks no tree.
        self._piece_bytes = 0

    def root(self, namespace: str) -> Node:
        """The tree of a namespace, made where there is none."""
        return self.roots.setdefault(namespace, tree.new_root())

    def namespace(self, holder: Holder) -> str:
        """The name of the tree that a state is in."""
        return next(name for name, root in self.roots.items() if root is holder.root)

    def nodes(self) -> list[Node]:
        """All nodes, parents before children."""
        return [n for root in self.roots.values() for n in root.below()]

    @property
    def busy(self) -> list[Holder]:
        return [h for h in self.states if h.busy]

    @property
    def can_change(self) -> bool:
        """Whether room will come by itself: somebody runs, or a copy is being written.

        Not where the disk does not take it: what waits for that would wait for ever.
        """
        tier = self.tier
        is_writing = tier is not None and tier.will_free > 0 and not tier.is_stuck
        return bool(self.busy) or is_writing

    @property
    def free(self) -> int:
        """What a state could have beside those that run: all else that is held can be dropped."""
        account = self._account()
        idle = sum(h.nbytes for h in self.states if not h.busy)
        return max(self.budget - account.total + idle + account.pieces, 0)

    # The account

    def account(self) -> Account:
        """All bytes, exactly. Walks the tree."""
        self._piece_bytes = sum(p.nbytes for p in self._pieces().values())
        return self._account()

    def weigh(self, piece: Piece | None) -> None:
        """Count a piece that was just made."""
        self._piece_bytes += piece.nbytes if piece is not None else 0

    def _account(self) -> Account:
        return Account(
            sum(h.sequence.nbytes for h in self.states),
            sum(h.nbytes - h.sequence.nbytes for h in self.states),
            self._piece_bytes,
            (self.tier.in_flight_nbytes if self.tier is not None else 0)
            + sum(h.restoring.in_flight_nbytes for h in self.states if h.restoring is not None),
        )

    def pieces(self) -> list[Piece]:
        """Everything at rest in memory, and what a restore holds of it."""
        return list(self._pieces().values())

    def _pieces(self) -> dict[int, Piece]:
        out: dict[int, Piece] = {}
        for n in self.nodes():
            out |= {id(p): p for p in _pieces_of(n)}
        for h in self.states:
            out |= {id(p): p for p in (h.restoring.pieces if h.restoring is not None else ())}
        return out

    # Making room

    def make_room(
        self, nbytes: int, *, spare: Iterable[object] = (), below: float = math.inf
    ) -> bool:
        """Drop what is worth less than `below` until so many bytes more fit.

        False: they cannot, and nothing was dropped. `spare`: states and pieces that must stay.
        """
        if self._account().total + nbytes <= self.budget:
            return True
        excess = self.account().total + nbytes - self.budget
        if excess <= 0:
            return True
        spared = {id(x) for x in spare}
        if not self._can_free(excess, spared, below):
            return False
        while excess > 0:
            found = self._candidates(spared, below)
            if not found:
                return False
            for c in found:
                self._evict_one(c)
                excess -= c.nbytes
                if excess <= 0 or c.worth > 0:
                    break  # what stood beside it, or on it, is worth something else now
            excess = self.account().total + nbytes - self.budget
        return True

    def cut(self, holder: Holder, node: Node) -> Segment | None:
        """Copy a node's rows out of a state; None: there is no room for them."""
        nbytes = holder.sequence.live.rows_nbytes(len(node.tokens))
        if not self.make_room(nbytes, spare=[holder]):
            return None
        piece = holder.sequence.cut(node.start, node.end)
        self.weigh(piece)
        return Segment(piece, node.start, node.start, node.end)

    def evict(self) -> None:
        """Drop the least valuable until the budget holds, as far as that can be."""
        if self._account().total <= self.budget:
            return
        excess = self.account().total - self.budget
        while excess > 0 and (found := self._candidates(set(), math.inf)):
            self._evict_one(found[0])
            excess = self.account().total - self.budget

    def _candidates(self, spared: set[int], below: float) -> list[Candidate]:
        found = candidates(self.nodes(), self.states, self.clock, is_cuttable=self.is_cuttable)
        return [c for c in found if c.worth < below and not (spared and _is_spared(c, spared))]

    def _can_free(self, excess: int, spared: set[int], below: float) -> bool:
        """Whether dropping all that may be dropped frees so much. Pieces are counted once.

        Rows on which something stands can follow it: only a limit on the worth excludes them.
        """
        if below < math.inf:
            return sum(c.nbytes for c in self._candidates(spared, below)) >= excess
        nodes = self.nodes()
        kept = pinned(nodes)
        idle = [h for h in self.states if not h.busy and not is_held(h, kept)]
        pieces = {id(p): p.nbytes for n in nodes if id(n) not in kept for p in _pieces_of(n)}
        free = {id(h): h.nbytes for h in idle} | pieces
        return sum(nbytes for x, nbytes in free.items() if x not in spared) >= excess

    def _evict_one(self, candidate: Candidate) -> None:
        if isinstance(candidate.victim, Holder):
            self._evict_state(candidate.victim)
        else:
            self.discard(candidate)

    def discard(self, candidate: Candidate) -> None:
        """Drop it whole, with the rows of a state that others share: nothing is copied."""
        if isinstance(candidate.victim, Holder):
            self.drop(candidate.victim)
        elif candidate.is_segment:
            candidate.victim.segment = None
        else:
            candidate.victim.checkpoint = None

    def _evict_state(self, holder: Holder) -> None:
        """Drop a state, but leave the part that others share as a segment."""
        shared = [n for n in holder.node.path() if n.kind == "system" or len(n.children) > 1]
        top = shared[-1] if shared and shared[-1] is not holder.node else None
        left: list[Node] = []
        if top is not None and 2 * top.end <= holder.sequence.length:
            left = [n for n in top.path() if n.holders == [holder]]
        try:
            if left:
                start = left[0].start
                piece = holder.sequence.release(start, left[-1].end)
                self.weigh(piece)
                for n in left:
                    n.segment = Segment(piece, start, n.start, n.end)
        finally:
            self.drop(holder)

    def reset(self, states: list[Holder]) -> None:
        """Drop everything but these states, which begin new trees."""
        old, self.roots = self.roots, {}
        self.states, self._piece_bytes = states, 0
        for holder in states:
            namespace = next(name for name, root in old.items() if root is holder.root)
            holder.root = holder.node = self.root(namespace)

    def drop(self, holder: Holder) -> None:
        """Take a state out of the tree, if that has not been done already."""
        if holder not in self.states:
            return
        self.states.remove(holder)
        node: Node | None = holder.node
        while node is not None and node.parent is not None:
            if holder in node.holders:
                node.holders.remove(holder)
            node = node.parent
        if self.tier is not None:
            self.tier.drop(holder)


def _pieces_of(node: Node) -> list[Piece]:
    """The pieces in memory that hang on a node."""
    held = [node.segment.piece if node.segment is not None else None, node.checkpoint]
    return [p for p in held if p is not None and not isinstance(p, OnDisk)]


def _is_spared(c: Candidate, spared: set[int]) -> bool:
    if isinstance(c.victim, Holder):
        return id(c.victim) in spared
    piece = c.victim.segment and c.victim.segment.piece if c.is_segment else c.victim.checkpoint
    return id(piece) in spared
