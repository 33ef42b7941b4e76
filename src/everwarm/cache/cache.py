"""The only door to the cache: lease, checkpoint, commit, evict. Engine thread only.

A lease moves a live state out of the tree's care, it does not copy it; `commit` files it again
under exactly the tokens that it has read. What a busy state holds stays matchable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from everwarm.cache import policy, tree
from everwarm.cache.evict import Candidate, candidates, forget_tokens
from everwarm.cache.forget import forget
from everwarm.cache.mend import strays
from everwarm.cache.policy import Policy
from everwarm.cache.restore import Plan, plan
from everwarm.cache.restoring import Lost, Restoring
from everwarm.cache.store import OnDisk
from everwarm.cache.thin import thin
from everwarm.cache.tier import DiskTier
from everwarm.cache.tree import Holder, Node, Segment
from everwarm.cache.view import counted, view
from everwarm.cache.wait import should_wait
from everwarm.events import CachedFrom
from everwarm.job import Path, TreeNode
from everwarm.tokens import Mark, MarkKind, Tokens

MAX_TREE_TOKENS: Final = 16_000_000
PRODUCT: Final = Policy()
_NAMES: Final[dict[str, CachedFrom]] = {
    "new": "nothing",
    "move": "live",
    "rewind": "rewind",
    "fork": "fork",
    "join": "pieces",
}


@dataclass(slots=True)
class Lease:
    """The right to continue a state. `holder.tokens` and the state are the same length.

    `restoring`: the state is on its way from disk; `resume` until it is whole.
    """

    holder: Holder
    start: int
    unseen: int
    cached_from: CachedFrom
    restoring: Restoring | None = None


class Cache:
    """Everything one model has read. `budget` in bytes; `keep` False files token edges only."""

    def __init__(
        self,
        new_live: Callable[[], Any],
        *,
        budget: int,
        keep: bool = True,
        bytes_at: Callable[[int], int] = lambda rows: 0,
        policy: Policy = PRODUCT,
        tier: DiskTier | None = None,
    ) -> None:
        self._new_live = new_live
        self.budget = budget
        self.policy = policy
        self._checkpoint_nbytes = 0
        self._keep = keep
        self.tier = tier
        self.prefill_tps: float | None = None
        self._bytes_at = bytes_at
        self._roots: dict[str, Node] = {}
        self._states: list[Holder] = []
        self._clock = 0
        # Upper bounds, made exact by a walk only where they reach a limit: a hit walks no tree.
        self._piece_bytes = 0
        self._tree_tokens = 0
        self.is_cuttable = bool(new_live().is_cuttable)
        if tier is not None:
            tier.graft(self._root)

    def lease(
        self,
        tokens: Tokens[int],
        marks: Sequence[Mark] = (),
        namespace: str = "",
        *,
        rows: int = 0,
    ) -> Lease | None:
        """Take up a prompt whose state may grow to `rows` tokens.

        None: wait. A busy state is about to hold what this one needs, or there is no room beside
        those that are busy. A prompt that is alone is never refused.
        """
        if not self.has_room(rows):
            return None
        root = self._root(namespace)
        for h in self._states:
            if h.busy:
                self._flush(h)
        steps = tree.match(root, tokens)
        chosen = self._plan(steps, len(tokens) - 1)
        if should_wait(self._states, tokens, chosen, root, is_cuttable=self.is_cuttable):
            return None
        self._clock += 1
        seen = steps[-1].upto if steps else 0
        for step in steps:
            step.node.used = self._clock
        holder = self._restore(root, tokens, steps, chosen)
        holder.goal, holder.marks, holder.used = tokens, tuple(marks), self._clock
        holder.rows = rows
        holder.node.resumed = self._clock
        self.evict()
        lease = Lease(holder, chosen.at, len(tokens) - seen, _NAMES[chosen.way])
        if holder.restoring:
            assert self.tier is not None
            lease.cached_from = "disk"
            lease.restoring = Restoring(self.tier.store, chosen, holder, tokens)
            lease.start = chosen.base
        return lease

    def resume(self, lease: Lease) -> Literal["whole", "coming", "lost"]:
        """Take what has arrived from disk. `lost`: a file was no good; lease again without it."""
        restoring, holder = lease.restoring, lease.holder
        if restoring is None:
            return "whole"
        try:
            if not restoring.step():
                return "coming"
        except Lost as e:
            assert self.tier is not None
            self.tier.forget(holder.root, e.file_id)
            self.abandon(lease)
            return "lost"
        holder.tokens = holder.goal[: restoring.at]
        lease.start, lease.restoring, holder.restoring = restoring.at, None, False
        tree.advance(holder)
        if restoring.made is not None and holder.node.checkpoint is None:
            holder.node.checkpoint = self._weighed(restoring.made)
        holder.node.resumed = self._clock
        return "whole"

    def stops(self, lease: Lease, end: int) -> dict[int, MarkKind | None]:
        """Where a prefill up to `end` should call `checkpoint`, with what kinds; ascending.

        Where every layer can be cut, only the end of the system prompt, which evictions spare.
        """
        goal, marks = lease.holder.goal, lease.holder.marks
        branch = len(goal) - lease.unseen
        found = self.policy.positions(
            lease.start, end, marks, branch=branch, nbytes=self._checkpoint_nbytes
        )
        return {at: k for at, k in found.items() if k == "system" or not self.is_cuttable}

    def checkpoint(self, lease: Lease, kind: MarkKind | None) -> None:
        """Keep what the layers that cannot be cut hold at the present position."""
        holder = lease.holder
        if not self._keep or holder.live.length == 0:
            return
        self._flush(holder)
        node = holder.node
        if node.checkpoint is None:
            node.checkpoint = self._weighed(holder.live.checkpoint())
        if node.checkpoint is not None:
            self._checkpoint_nbytes = node.checkpoint.nbytes
        node.kind = node.kind or kind
        node.used = self._clock
        if kind is not None:
            node.resumed = self._clock
        thin(holder, self.policy, self.budget // policy.CONVERSATION_SHARE)

    def commit(self, lease: Lease) -> None:
        """File the state under what it has read, and keep the budget."""
        holder = lease.holder
        self._flush(holder)
        holder.busy = False
        holder.used = self._clock
        self._tree_tokens += len(holder.tokens) - lease.start
        if not self._keep or holder.live.length == 0:
            self._drop(holder)
            return
        if not self.is_cuttable:
            self.checkpoint(lease, None)
        self._remove_doubles(holder)
        holder.live.reserve()
        self.spill(holder)
        self.evict()

    def spill(self, holder: Holder) -> None:
        """Have the disk tier write what this state holds, between the steps that follow."""
        if self.tier is not None and self._keep:
            names = (name for name, root in self._roots.items() if root is holder.root)
            self.tier.keep(holder, next(names))

    def abandon(self, lease: Lease) -> None:
        """After a fault: go back to where the lease began and keep that; drop it if that fails."""
        holder, at = lease.holder, lease.start
        holder.busy = holder.restoring = False
        path = [n for n in holder.node.path() if n.start < at]
        step = tree.Step(path[-1], at) if path and path[-1].end >= at else None
        checkpoint = path[-1].checkpoint if step and path[-1].end == at else None
        if step is None or not self._keep or not holder.live.recover(at, checkpoint):
            self._drop(holder)
            return
        tree.withdraw(holder, tree.node_at(step))
        holder.tokens = holder.tokens[:at]
        self._remove_doubles(holder)

    def mend(self, leases: Sequence[Lease]) -> None:
        """After a fault: drop the states that it may have left half-way. `leases`: those that go
        on."""
        for holder in strays(self._states, [x.holder for x in leases]):
            self._drop(holder)
            if self.tier is not None:
                self.tier.let_go(holder)

    def reset(self, leases: Sequence[Lease]) -> None:
        """After a fault that leaves nothing to be trusted: forget what is in memory, but the states
        of leases that go on. What is on disk is found again."""
        old, self._roots = self._roots, {}
        self._states = [x.holder for x in leases]
        self._piece_bytes = self._tree_tokens = 0
        for holder in self._states:
            namespace = next(name for name, root in old.items() if root is holder.root)
            holder.root = holder.node = self._root(namespace)
        if self.tier is not None:
            self.tier.restart(self._root)

    def forget(self, path: Path) -> None:
        """Let go what stands on this path alone, behind what others share with it."""
        for holder in forget(self._root(path.namespace), path, self._cut):
            self._drop(holder)
            if self.tier is not None:
                self.tier.let_go(holder)

    def view(self, paths: Mapping[str, Sequence[Path]]) -> list[TreeNode]:
        """The tree for people."""
        return view(self._roots, self._states, self._clock, paths, is_cuttable=self.is_cuttable)

    @property
    def roots(self) -> Mapping[str, Node]:
        """The trees, by namespace."""
        return self._roots

    def forget_files(self, file_ids: frozenset[str]) -> None:
        """Files were deleted. What idle states hold of them for others is written again."""
        assert self.tier is not None
        self.tier.gone(file_ids, self._roots.values())
        for h in (h for h in self._states if not h.busy):
            self.spill(h)

    @property
    def nbytes(self) -> int:
        """Bytes held by live states and resting pieces, each counted once. Walks the tree."""
        pieces: dict[int, int] = {}
        for node in self._nodes():
            if node.segment is not None:
                pieces[id(node.segment.piece)] = node.segment.piece.nbytes
            if node.checkpoint is not None:
                pieces[id(node.checkpoint)] = node.checkpoint.nbytes
        self._piece_bytes = sum(pieces.values())
        return self._piece_bytes + self._live_bytes()

    def stats(self) -> dict[str, int]:
        """Counts for people."""
        counts = {"cache_bytes": self.nbytes, "cache_budget_bytes": self.budget}
        return counts | {"states": len(self._states)} | counted(self._nodes())

    def evict(self) -> None:
        """Let the least valuable go until the budget holds. Busy states are never touched."""
        while self._piece_bytes + self._live_bytes() > self.budget:
            excess = self.nbytes - self.budget
            found = candidates(
                self._nodes(), self._states, self._clock, is_cuttable=self.is_cuttable
            )
            for c in found:
                if excess <= 0:
                    break
                self._let_go(c)
                excess -= c.nbytes
                if isinstance(c.gone, Holder):
                    break  # what it covered is worth less now
            if not found:
                break
        if self._tree_tokens > MAX_TREE_TOKENS:
            self._tree_tokens = forget_tokens(self._nodes(), MAX_TREE_TOKENS)

    def _nodes(self) -> list[Node]:
        return [n for root in self._roots.values() for n in root.below()]

    def _live_bytes(self) -> int:
        return sum(h.live.nbytes for h in self._states)

    def _weighed(self, piece: Any) -> Any:
        """Count a new piece."""
        self._piece_bytes += piece.nbytes if piece is not None else 0
        return piece

    def has_room(self, rows: int) -> bool:
        """Whether a state of `rows` tokens fits beside the busy ones at their longest."""
        busy = [self._bytes_at(h.rows) for h in self._states if h.busy]
        return not busy or self._bytes_at(rows) + sum(busy) <= self.budget

    def _root(self, namespace: str) -> Node:
        return self._roots.setdefault(namespace, tree.new_root())

    def _plan(self, steps: list[tree.Step], limit: int) -> Plan:
        near = plan(steps, limit, is_cuttable=self.is_cuttable)
        if self.tier is None:
            return near
        far = plan(steps, limit, is_cuttable=self.is_cuttable, from_disk=True)
        return far if self.tier.pays(far, near.at, self.prefill_tps) else near

    def _flush(self, holder: Holder) -> None:
        if holder.restoring:
            return
        assert holder.live.length == len(holder.tokens), "a state and its tokens differ in length"
        tree.advance(holder)

    def _restore(
        self, root: Node, tokens: Tokens[int], steps: list[tree.Step], chosen: Plan
    ) -> Holder:
        holder = chosen.holder
        if holder is None or chosen.way == "fork":
            at_end = None if isinstance(chosen.checkpoint, OnDisk) else chosen.checkpoint
            if holder is not None and holder.live.length == chosen.base == chosen.at:
                at_end = None
            live = self._new_live() if holder is None else holder.live.fork(chosen.base, at_end)
            holder = Holder(live, tokens[: chosen.base], root, root)
            self._states.append(holder)
        elif chosen.way == "rewind":
            self._cut_tail(holder, next(s for s in steps if s.upto >= chosen.base), chosen)
        holder.busy = True
        holder.ending = False
        if chosen.files:
            holder.restoring = True
            holder.tokens = tokens[: chosen.base]
            return holder
        for s in chosen.segments:
            holder.live.extend(s.piece, s.start, s.end, s.piece_start)
        if chosen.segments:
            holder.live.put_back(chosen.checkpoint)
        holder.tokens = tokens[: chosen.at]
        if chosen.at:
            tree.advance(holder)
        return holder

    def _cut_tail(self, holder: Holder, step: tree.Step, chosen: Plan) -> None:
        """Leave what lies behind the base as segments, then go back to it."""
        at = tree.node_at(tree.Step(step.node, chosen.base))
        if self.tier is not None:
            self.tier.leaves(holder)
        for node in tree.withdraw(holder, at):
            if not node.holders:
                node.segment = self._cut(holder, node)
        there = not chosen.segments and not isinstance(chosen.checkpoint, OnDisk)
        holder.live.rewind(chosen.base, chosen.checkpoint if there else None)

    def _cut(self, holder: Holder, node: Node) -> Segment:
        piece = self._weighed(holder.live.cut(node.start, node.end))
        return Segment(piece, node.start, node.start, node.end)

    def _remove_doubles(self, holder: Holder) -> None:
        """Drop idle states whose whole path another state's path contains."""
        for node in holder.node.path():
            for other in [h for h in node.holders if h is not holder and not h.busy]:
                if other.node is node:
                    if node.checkpoint is None:
                        node.checkpoint = self._weighed(other.live.checkpoint())
                    self._drop(other)

    def _drop(self, holder: Holder) -> None:
        self._states.remove(holder)
        node: Node | None = holder.node
        while node is not None and node.parent is not None:
            if holder in node.holders:
                node.holders.remove(holder)
            node = node.parent

    def _let_go(self, candidate: Candidate) -> None:
        if isinstance(candidate.gone, Holder):
            self._let_state_go(candidate.gone)
        elif candidate.is_segment:
            candidate.gone.segment = None
        else:
            candidate.gone.checkpoint = None

    def _let_state_go(self, holder: Holder) -> None:
        """Drop a state, but leave the part that others share as a resting piece."""
        shared = [n for n in holder.node.path() if n.kind == "system" or len(n.children) > 1]
        top = shared[-1] if shared and shared[-1] is not holder.node else None
        if top is not None and 2 * top.end <= holder.live.length:
            for n in top.path():
                if n.holders == [holder]:
                    n.segment = self._cut(holder, n)
        self._drop(holder)
