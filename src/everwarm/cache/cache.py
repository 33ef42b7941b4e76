"""The door to the cache: lease, checkpoint, commit, evict. Engine thread only.

A lease takes a sequence out of the tree's care and does not copy it. `commit` files it again under
exactly the tokens that it has read. Prompts are matched with busy sequences too. Whoever is about
to take memory asks for room first (`memory.py`). A call that raises drops what it touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from everwarm.cache import policy, sequence, stopgap, tree
from everwarm.cache.admission import Need, NoRoom, admit
from everwarm.cache.disk.restoring import Restoring
from everwarm.cache.disk.tier import DiskTier
from everwarm.cache.drop import drop_path
from everwarm.cache.evict import evict_tokens
from everwarm.cache.memory import Memory
from everwarm.cache.mend import strays
from everwarm.cache.policy import CachePolicy
from everwarm.cache.restore import RestorePlan, plan
from everwarm.cache.thin import thin
from everwarm.cache.tree import Holder, Node, PathStep
from everwarm.cache.view import counted, node_of, paths_below, view
from everwarm.cache.wait import should_wait
from everwarm.events import CachedFrom
from everwarm.job import Path, TreeNode
from everwarm.tokens import Mark, MarkKind, Tokens

Wait = Literal["others"] | NoRoom
MAX_TREE_TOKENS: Final = 16_000_000
RESET_WAIT_S: Final = 5.0
PRODUCT: Final = CachePolicy()
_NAMES: Final[dict[str, CachedFrom]] = {
    "new": "nothing",
    "move": "live",
    "rewind": "rewind",
    "fork": "fork",
    "join": "pieces",
}


@dataclass(slots=True)
class Lease:
    """The right to continue a sequence.

    `restoring`: the sequence is on its way from disk; `resume` until it is whole.
    """

    holder: Holder
    start: int
    unseen: int
    cached_from: CachedFrom
    restoring: Restoring | None = None

    @property
    def sequence(self) -> sequence.Sequence:
        return self.holder.sequence


class Cache:
    """Everything that one model has read, within `budget` bytes. `keep` False: only its tokens.

    `bytes_at`: the most bytes that a state of so many tokens takes.
    """

    def __init__(
        self,
        new_live: Callable[[], Any],
        *,
        budget: int,
        keep: bool = True,
        bytes_at: Callable[[int], int] = lambda rows: 0,
        policy: CachePolicy = PRODUCT,
        tier: DiskTier | None = None,
    ) -> None:
        self._new_live = new_live
        self.policy = policy
        self._keep = keep
        self.tier = tier
        self.prefill_tps: float | None = None
        self._bytes_at = bytes_at
        self._checkpoint_nbytes = 0
        self._tree_tokens = 0  # an upper bound
        self.is_cuttable = bool(new_live().is_cuttable)
        self.memory = Memory(budget, is_cuttable=self.is_cuttable, tier=tier)
        if tier is not None:
            tier.attach(new_live(), budget, self.memory.make_room, policy)
            tier.graft(self.memory.root)

    def lease(
        self,
        tokens: Tokens[int],
        marks: Sequence[Mark] = (),
        namespace: str = "",
        *,
        rows: int = 0,
    ) -> Lease | Wait:
        """Take up a prompt whose state may grow to `rows` tokens.

        `others`: wait for a busy state that is about to hold what this prompt needs. `NoRoom`:
        wait until the busy states leave room. RequestError: there is no room for it even alone.
        """
        memory = self.memory
        root = memory.root(namespace)
        for h in memory.busy:
            tree.catch_up(h)
        steps = tree.match(root, tokens)
        chosen = self._plan(steps, len(tokens) - 1)
        if should_wait(memory.states, tokens, chosen, root, is_cuttable=self.is_cuttable):
            return "others"
        admitted = admit(memory, steps, chosen, Need(len(tokens), rows, self._bytes_at))
        if isinstance(admitted, NoRoom):
            return admitted
        chosen = admitted
        memory.clock += 1
        seen = steps[-1].upto if steps else 0
        for step in steps:
            step.node.used = memory.clock
        holder = self._take_up(root, steps, chosen, rows)
        holder.goal, holder.marks, holder.used = tokens, tuple(marks), memory.clock
        holder.spill = chosen.at
        lease = Lease(holder, chosen.base, len(tokens) - seen, _NAMES[chosen.way])
        with self._dropped_on_error(holder):
            self._continue(lease, chosen, tokens)
        stopgap.resume(holder.node, memory.clock)
        return lease

    def resume(self, lease: Lease) -> Literal["whole", "coming", "lost"]:
        """Take what has arrived from disk. `lost`: a file was no good; lease again without it."""
        restoring, holder = lease.restoring, lease.holder
        if restoring is None:
            return "whole"
        with self._dropped_on_error(holder):
            arrived = restoring.step(holder.root)
            if arrived == "lost":
                self.abandon(lease)
            if arrived != "whole":
                return arrived
        lease.start, lease.restoring, holder.restoring = restoring.at, None, None
        tree.advance(holder)
        if restoring.made is not None and holder.node.checkpoint is None:
            holder.node.checkpoint = restoring.made
            self.memory.weigh(restoring.made)
        stopgap.resume(holder.node, self.memory.clock)
        return "whole"

    def extend(self, lease: Lease, rows: int) -> bool:
        """Let a running state grow to `rows` tokens. False: there is no room beside the others."""
        holder, nbytes = lease.holder, self._bytes_at(rows)
        if not self.memory.make_room(nbytes - holder.nbytes):
            return False
        holder.rows, holder.promised = rows, nbytes
        return True

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
        """Keep what the layers that cannot be cut hold here, if there is room for it."""
        holder = lease.holder
        if not self._keep or holder.sequence.length == 0:
            return
        tree.catch_up(holder)
        node = holder.node
        node.kind, node.is_stopgap = node.kind or kind, False
        node.used = self.memory.clock
        if node.checkpoint is None:
            self._take_checkpoint(holder, node)
        if node.checkpoint is not None:
            self._checkpoint_nbytes = node.checkpoint.nbytes
        if kind is not None:
            node.resumed = self.memory.clock
        thin(holder, self.policy, self.memory.budget // policy.CONVERSATION_SHARE)

    def commit(self, lease: Lease) -> None:
        """File the sequence under what it has read."""
        holder = lease.holder
        with self._dropped_on_error(holder):
            tree.catch_up(holder)
            holder.used = self.memory.clock
            self._tree_tokens += holder.sequence.length - lease.start
            if not self._keep or holder.sequence.length == 0:
                self.memory.drop(holder)
                return
            if not self.is_cuttable:
                self.checkpoint(lease, None)
            holder.sequence.reserve()
            self._drop_doubles(holder)
            holder.busy, holder.promised = False, 0
            self.spill(holder)
        self.evict()

    def spill(self, holder: Holder) -> None:
        """Have the disk tier write what this state holds, between the next steps.

        Of a busy state that is what it has read by now, so that little is lost if the engine dies.
        """
        if self.tier is None or not self._keep:
            return
        if holder.busy:
            tree.catch_up(holder)
            holder.spill = holder.node.end
            node, nbytes = holder.node, holder.sequence.live.checkpoint_nbytes
            if nbytes and stopgap.is_wanted(node, nbytes, self.tier.stats()):
                self._take_checkpoint(holder, node)
                node.is_stopgap = node.checkpoint is not None
        self.tier.keep(holder, self.memory.namespace(holder))

    def abandon(self, lease: Lease) -> None:
        """After a fault: go back to where the lease began and keep that; drop it if that fails."""
        holder, at = lease.holder, lease.start
        if holder not in self.memory.states:
            return
        with self._dropped_on_error(holder):
            holder.restoring = None
            path = [n for n in holder.node.path() if n.start < at]
            step = PathStep(path[-1], at) if path and path[-1].end >= at else None
            checkpoint = path[-1].checkpoint if step and path[-1].end == at else None
            if step is None or not self._keep or not holder.sequence.recover(at, checkpoint):
                self.memory.drop(holder)
                return
            tree.withdraw(holder, tree.node_at(step))
            self._drop_doubles(holder)
            holder.busy, holder.promised = False, 0

    def mend(self, leases: Sequence[Lease]) -> None:
        """After a fault: drop the states that it may have left half-way; these leases go on."""
        for holder in strays(self.memory.states, [x.holder for x in leases]):
            self.memory.drop(holder)

    def reset(self, leases: Sequence[Lease]) -> None:
        """After a fault that leaves nothing to be trusted: drop all that is in memory.

        The states of leases that go on stay. What is on disk is found again.
        """
        self._tree_tokens = 0
        self.memory.reset([x.holder for x in leases])
        if self.tier is not None:
            self.tier.graft(self.memory.root, RESET_WAIT_S)

    def drop(self, paths: Sequence[Path]) -> int:
        """Drop from memory what only these paths hold; how many bytes."""
        before = self.nbytes
        for path in sorted(paths, key=lambda p: -len(p.tokens)):
            drop_path(self.memory, path)
        return before - self.nbytes

    def drop_files(self, file_ids: frozenset[str]) -> None:
        """Let nothing rest on files that were deleted.

        What idle states hold of them for other conversations is written again.
        """
        assert self.tier is not None
        self.tier.drop_files(file_ids, self.roots.values())
        for h in (h for h in self.memory.states if not h.busy):
            self.spill(h)

    def pin(self, node_id: int, *, is_pinned: bool) -> bool:
        """Spare a node and all in front of it from eviction, or no longer. False: no such node."""
        found = node_of(self.roots, node_id)
        if found is None:
            return False
        found[1].is_pinned = is_pinned
        if self.tier is not None:
            self.tier.pin(self.roots.values())
        return True

    def tree(self, paths: Mapping[str, Sequence[Path]]) -> list[TreeNode]:
        """The trees for people, parents before children."""
        m = self.memory
        return view(m.roots, m.states, m.clock, paths, is_cuttable=self.is_cuttable)

    def paths_below(self, node_id: int) -> list[Path]:
        """What to drop so that a node goes with all behind it. Empty: there is no such node."""
        return paths_below(self.roots, node_id)

    @property
    def roots(self) -> Mapping[str, Node]:
        """The trees, by namespace."""
        return self.memory.roots

    @property
    def nbytes(self) -> int:
        """Bytes held by states and resting pieces, each counted once. Walks the tree."""
        return self.memory.account().nbytes

    def stats(self) -> dict[str, int | float | str]:
        """Counts for people, of memory and disk."""
        account = self.memory.account()
        return {
            "cache_bytes": account.nbytes,
            "cache_budget_bytes": self.memory.budget,
            "cache_promised_bytes": account.promised,
            "cache_in_flight_bytes": account.in_flight,
            "states": len(self.memory.states),
            **counted(self.memory.nodes()),
            **(self.tier.stats().for_people() if self.tier is not None else {}),
        }

    def evict(self) -> None:
        """Drop the least valuable until the budget holds. Busy states are never touched."""
        self.memory.evict()
        if self._tree_tokens > MAX_TREE_TOKENS:
            self._tree_tokens = evict_tokens(self.memory.nodes(), MAX_TREE_TOKENS)

    def new_sequence(self) -> sequence.Sequence:
        """A sequence that has read nothing."""
        return sequence.Sequence(self._new_live())

    def _plan(self, steps: list[PathStep], limit: int) -> RestorePlan:
        near = plan(steps, limit, is_cuttable=self.is_cuttable)
        if self.tier is None:
            return near
        far = plan(steps, limit, is_cuttable=self.is_cuttable, from_disk=True)
        return far if self.tier.pays(far, near.at, self.prefill_tps) else near

    def _take_up(self, root: Node, steps: list[PathStep], chosen: RestorePlan, rows: int) -> Holder:
        """The sequence that the plan builds on, busy, at the plan's base."""
        holder = chosen.holder
        if holder is None or chosen.way == "fork":
            if holder is None:
                own = self.new_sequence()
            else:
                own = holder.sequence.fork(chosen.base, chosen.checkpoint_at_base)
            holder = Holder(own, root, root)
            self.memory.states.append(holder)
        holder.busy, holder.ending = True, False
        holder.rows, holder.promised = rows, self._bytes_at(rows)
        if chosen.way == "rewind":
            with self._dropped_on_error(holder):
                self._cut_tail(holder, next(s for s in steps if s.upto >= chosen.base), chosen)
        return holder

    def _continue(self, lease: Lease, chosen: RestorePlan, tokens: Tokens[int]) -> None:
        """Append what the plan adds to its base, or begin to read it from disk."""
        holder = lease.holder
        if chosen.base and holder.node is holder.root:
            tree.advance(holder)
        if chosen.files:
            assert self.tier is not None
            lease.cached_from = "disk"
            lease.restoring = holder.restoring = self.tier.restore(chosen, holder, tokens)
            return
        for s in chosen.segments:
            own = tokens[s.start : s.end]
            holder.sequence.extend(s.piece, s.start, s.end, s.piece_start, own)
        if chosen.segments:
            holder.sequence.put_back(chosen.checkpoint)
        lease.start = chosen.at
        tree.advance(holder)

    def _cut_tail(self, holder: Holder, step: PathStep, chosen: RestorePlan) -> None:
        """Leave what lies behind the base as segments, then go back to it."""
        at = tree.node_at(PathStep(step.node, chosen.base))
        if self.tier is not None:
            self.tier.keep_tail(holder)
        for node in tree.withdraw(holder, at):
            if not node.holders and chosen.keeps_tail:
                node.segment = self.memory.cut(holder, node)
        holder.sequence.rewind(chosen.base, chosen.checkpoint_at_base)

    def _take_checkpoint(self, holder: Holder, node: Node) -> None:
        """Take a checkpoint where there is room for one that is worth as much as this one."""
        nbytes = holder.sequence.live.checkpoint_nbytes
        before = max((n.end for n in node.path()[:-1] if n.checkpoint is not None), default=0)
        worth = policy.value((node.end - before) * policy.chance(node.kind), nbytes, 0)
        if nbytes and self.memory.make_room(nbytes, spare=[holder], below=worth):
            node.checkpoint, node.is_stopgap = holder.sequence.checkpoint(), False
            self.memory.weigh(node.checkpoint)

    def _drop_doubles(self, holder: Holder) -> None:
        """Drop the idle states whose whole path is a part of this state's path."""
        for node in holder.node.path():
            for other in [h for h in node.holders if h is not holder and not h.busy]:
                if other.node is node:
                    if node.checkpoint is None:
                        self._take_checkpoint(other, node)
                    self.memory.drop(other)

    @contextmanager
    def _dropped_on_error(self, holder: Holder) -> Iterator[None]:
        """Drop a state where what is inside raises, since that has left it unusable."""
        with ExitStack() as on_error:
            on_error.callback(self.memory.drop, holder)
            yield
            on_error.pop_all()
