"""The only door to the cache: lease, checkpoint, commit, evict. Engine thread only.

A lease moves a live state out of the tree's care, it does not copy it; `commit` files it again
under exactly the tokens that it has read. What a busy state holds stays matchable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from everwarm.cache import policy, tree
from everwarm.cache.restore import Plan, plan
from everwarm.cache.tree import Holder, Node, Segment
from everwarm.events import CachedFrom
from everwarm.tokens import Mark, MarkKind, Tokens, common_length

MAX_TREE_TOKENS: Final = 16_000_000
WORTH_WAITING: Final = 64
_NAMES: Final[dict[str, CachedFrom]] = {
    "new": "nothing",
    "move": "live",
    "rewind": "rewind",
    "fork": "fork",
    "join": "pieces",
}


@dataclass(slots=True)
class Lease:
    """The right to continue a state. `holder.tokens` and the state are the same length."""

    holder: Holder
    start: int
    unseen: int
    cached_from: CachedFrom


class Cache:
    """Everything one model has read. `budget` in bytes; `keep` False files token edges only."""

    def __init__(self, new_live: Callable[[], Any], *, budget: int, keep: bool = True) -> None:
        self._new_live = new_live
        self.budget = budget
        self._keep = keep
        self._roots: dict[str, Node] = {}
        self._busy: list[Holder] = []
        self._clock = 0
        self.is_cuttable = bool(new_live().is_cuttable)

    def lease(
        self, tokens: Tokens[int], marks: Sequence[Mark] = (), namespace: str = ""
    ) -> Lease | None:
        """Take up a prompt; None: wait, a busy state is about to hold what this one needs."""
        root = self._roots.setdefault(namespace, tree.new_root())
        for h in self._holders():
            if h.busy:
                self._flush(h)
        steps = tree.match(root, tokens)
        chosen = plan(steps, len(tokens) - 1, is_cuttable=self.is_cuttable)
        if self._should_wait(tokens, chosen, root):
            return None
        self._clock += 1
        seen = steps[-1].upto if steps else 0
        for step in steps:
            step.node.used = self._clock
        holder = self._restore(root, tokens, chosen)
        holder.goal, holder.marks, holder.used = tokens, tuple(marks), self._clock
        self.evict()
        return Lease(holder, chosen.at, len(tokens) - seen, _NAMES[chosen.way])

    def checkpoint(self, lease: Lease, kind: MarkKind | None) -> None:
        """Keep what the layers that cannot be cut hold at the present position."""
        holder = lease.holder
        if not self._keep or holder.live.length == 0:
            return
        self._flush(holder)
        node = holder.node
        if node.checkpoint is None:
            node.checkpoint = holder.live.checkpoint()
        node.kind = node.kind or kind
        node.used = self._clock
        self._thin(node)

    def commit(self, lease: Lease) -> None:
        """File the state under what it has read, and keep the budget."""
        holder = lease.holder
        self._flush(holder)
        holder.busy = False
        self._busy.remove(holder)
        holder.used = self._clock
        if not self._keep or holder.live.length == 0:
            self._drop(holder)
            return
        if not self.is_cuttable:
            self.checkpoint(lease, None)
        self._remove_doubles(holder)
        holder.live.reserve()
        self.evict()

    def abandon(self, lease: Lease) -> None:
        """Drop a state that a fault has left uneven."""
        self._busy.remove(lease.holder)
        self._drop(lease.holder)

    @property
    def nbytes(self) -> int:
        """Bytes held by live states and resting pieces, each counted once."""
        pieces: dict[int, int] = {}
        for node in self._nodes():
            if node.segment is not None:
                pieces[id(node.segment.piece)] = node.segment.piece.nbytes
            if node.checkpoint is not None:
                pieces[id(node.checkpoint)] = node.checkpoint.nbytes
        return sum(pieces.values()) + sum(h.live.nbytes for h in self._holders())

    def stats(self) -> dict[str, int]:
        """Counts for people."""
        nodes = list(self._nodes())
        return {
            "cache_bytes": self.nbytes,
            "cache_budget_bytes": self.budget,
            "states": len(self._holders()),
            "segments": sum(n.segment is not None for n in nodes),
            "checkpoints": sum(n.checkpoint is not None for n in nodes),
            "tree_tokens": sum(len(n.tokens) for n in nodes),
        }

    def evict(self) -> None:
        """Let the least valuable go until the budget holds. Busy states are never touched."""
        while self.nbytes > self.budget:
            candidates = [*self._droppable()]
            if not candidates:
                break
            min(candidates, key=lambda c: c[0])[1]()
        self._forget_tokens()

    def _nodes(self) -> list[Node]:
        return [n for root in self._roots.values() for n in root.below()]

    def _holders(self) -> list[Holder]:
        on_nodes = {id(h): h for n in self._nodes() for h in n.holders}
        return list((on_nodes | {id(h): h for h in self._busy}).values())

    def _flush(self, holder: Holder) -> None:
        assert holder.live.length == len(holder.tokens), "a state and its tokens differ in length"
        tree.advance(holder)

    def _should_wait(self, tokens: Tokens[int], chosen: Plan, root: Node) -> bool:
        """A busy state is on its way to hold more of this prompt than anything holds now."""
        for h in self._holders():
            if not h.busy or h.root is not root:
                continue
            if h.ending:
                if common_length(h.tokens, tokens) > chosen.at:
                    return True
                continue
            shared = min(common_length(h.goal, tokens), len(tokens) - 1)
            if not self.is_cuttable:
                shared = max((m.at for m in h.marks if m.at <= shared), default=0)
            if h.live.length < shared and shared > chosen.at + WORTH_WAITING:
                return True
        return False

    def _restore(self, root: Node, tokens: Tokens[int], chosen: Plan) -> Holder:
        steps = tree.match(root, tokens)
        holder = chosen.holder
        if holder is None or chosen.way == "fork":
            at_end = chosen.checkpoint
            if holder is not None and holder.live.length == chosen.base == chosen.at:
                at_end = None
            live = self._new_live() if holder is None else holder.live.fork(chosen.base, at_end)
            holder = Holder(live, tokens[: chosen.base], root, root)
        elif chosen.way == "rewind":
            self._cut_tail(holder, next(s for s in steps if s.upto >= chosen.base), chosen)
        holder.busy = True
        self._busy.append(holder)
        holder.ending = False
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
        for node in tree.withdraw(holder, at):
            if not node.holders:
                piece = holder.live.cut(node.start, node.end)
                node.segment = Segment(piece, node.start, node.start, node.end)
        holder.live.rewind(chosen.base, chosen.checkpoint if not chosen.segments else None)

    def _remove_doubles(self, holder: Holder) -> None:
        """Drop idle states whose whole path another state's path contains."""
        for node in holder.node.path():
            for other in [h for h in node.holders if h is not holder and not h.busy]:
                if other.node is node:
                    if node.checkpoint is None:
                        node.checkpoint = other.live.checkpoint()
                    self._drop(other)

    def _drop(self, holder: Holder) -> None:
        node: Node | None = holder.node
        while node is not None and node.parent is not None:
            if holder in node.holders:
                node.holders.remove(holder)
            node = node.parent

    def _thin(self, node: Node) -> None:
        """Keep the conversation's checkpoints few and well spread."""
        while True:
            held = [n for n in node.path() if n.checkpoint is not None]
            weights = [
                policy.HEAVY if n.kind == "system" or len(n.children) > 1 else 1 for n in held
            ]
            kept = [n.used >= self._clock - 1 and n.kind is not None for n in held]
            index = policy.to_drop([n.end for n in held], weights, kept)
            if index is None:
                return
            held[index].checkpoint = None

    def _droppable(self) -> list[tuple[float, Callable[[], None]]]:
        out: list[tuple[float, Callable[[], None]]] = []
        for node in self._nodes():
            age = self._clock - node.used
            if node.segment is not None and not any(n.holds_bytes for n in _below(node)):
                worth = policy.value(node.end - node.start, node.segment.piece.nbytes, age)
                out.append((worth, _forget(node, "segment")))
            if node.checkpoint is not None and node.kind != "system":
                gap = node.end - max(
                    (n.end for n in node.path()[:-1] if n.checkpoint is not None), default=0
                )
                out.append(
                    (policy.value(gap, node.checkpoint.nbytes, age), _forget(node, "checkpoint"))
                )
        for h in self._holders():
            if not h.busy:
                worth = policy.value(h.live.length, h.live.nbytes, self._clock - h.used)
                out.append((worth, lambda h=h: self._let_go(h)))  # type: ignore[misc]
        return out

    def _let_go(self, holder: Holder) -> None:
        """Drop a state, but leave the part that others share as a resting piece."""
        shared = [n for n in holder.node.path() if n.kind == "system" or len(n.children) > 1]
        top = shared[-1] if shared and shared[-1] is not holder.node else None
        if top is not None and 2 * top.end <= holder.live.length:
            for n in top.path():
                if n.holders == [holder]:
                    n.segment = Segment(holder.live.cut(n.start, n.end), n.start, n.start, n.end)
        self._drop(holder)

    def _forget_tokens(self) -> None:
        """Bound the memory of what was read: the longest unused leaves go first."""
        total = sum(len(n.tokens) for n in self._nodes())
        if total <= MAX_TREE_TOKENS:
            return
        ghosts = [n for n in self._nodes() if not n.children and not n.holds_bytes and n.parent]
        for node in sorted(ghosts, key=lambda n: n.used):
            assert node.parent is not None
            del node.parent.children[node.tokens[0]]
            total -= len(node.tokens)
            if total <= MAX_TREE_TOKENS * 9 // 10:
                break


def _below(node: Node) -> list[Node]:
    return [n for n in node.below() if n is not node]


def _forget(node: Node, what: str) -> Callable[[], None]:
    return lambda: setattr(node, what, None)
