"""Which parts of the tree could be evicted, and what would be lost? One walk, when memory is full.

    tokens      |---- system ----|------------- conversation -------------|
    checkpoints               S        c1         c2                 c3
    state h     |=================================================|    covers them: all are of use

To restore a position takes all rows up to it, and a checkpoint there where layers cannot be cut. So
a checkpoint without its rows, and rows without a checkpoint behind them, are worth nothing. A
checkpoint is worth what a request that goes on from it need not read, back to the checkpoint before
it. With a state go the checkpoints that nothing else covers. The state is weighed by its own bytes,
so that its checkpoints are evicted before it and never push it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from everwarm.cache import policy
from everwarm.cache.tree import Holder, Node


@dataclass(frozen=True, slots=True)
class Candidate:
    """A state, or a node's segment or checkpoint, that may be evicted."""

    worth: float
    nbytes: int
    victim: Holder | Node
    is_segment: bool = False


def candidates(
    nodes: Sequence[Node], states: Sequence[Holder], clock: int, *, is_cuttable: bool
) -> list[Candidate]:
    """All that may be evicted now, the least valuable first. `nodes`: parents before children."""
    covered, kept = _covered(nodes), pinned(nodes)
    goals = {id(h.node): len(h.goal) for h in states if h.busy}
    out = [
        *_checkpoints(nodes, covered, clock, goals),
        *_segments(nodes, covered, clock, is_cuttable),
    ]
    out = [c for c in out if id(c.victim) not in kept]
    out += [_state(h, clock) for h in states if not h.busy and not is_held(h, kept)]
    return sorted(out, key=lambda c: c.worth)


def evict_tokens(nodes: Sequence[Node], most: int) -> int:
    """Bound the memory of tokens that were read, the longest unused first; how many stay."""
    total = sum(len(n.tokens) for n in nodes)
    ghosts = [n for n in nodes if not n.children and n.parent and n.is_bare]
    for node in sorted(ghosts, key=lambda n: n.used):
        if total <= most * 9 // 10:
            break
        assert node.parent is not None
        del node.parent.children[node.tokens[0]]
        total -= len(node.tokens)
    return total


def pinned(nodes: Sequence[Node]) -> set[int]:
    """The nodes that a person has pinned, and all in front of them."""
    return {id(up) for n in nodes if n.is_pinned for up in n.path()}


def is_held(holder: Holder, kept: set[int]) -> bool:
    """Whether a state is the only one that holds a node which must stay."""
    return bool(kept) and any(id(n) in kept and n.holders == [holder] for n in holder.node.path())


def _covered(nodes: Sequence[Node]) -> set[int]:
    """Nodes whose rows are all held, from the root on."""
    out: set[int] = set()
    for n in nodes:
        held = bool(n.holders) or n.segment is not None
        if n.parent is None or (held and id(n.parent) in out):
            out.add(id(n))
    return out


@dataclass(frozen=True, slots=True, order=True)
class _Below:
    """What was read last below a node: when, how far, and the first checkpoint on that path."""

    used: int
    end: int
    checkpoint: int | None = field(default=None, compare=False)


def _checkpoints(
    nodes: Sequence[Node], covered: set[int], clock: int, goals: Mapping[int, int]
) -> list[Candidate]:
    """`goals`: how far the busy state at a node is going to read."""
    out: list[Candidate] = []
    above, below = _above(nodes), dict[int, _Below]()
    for n in reversed(nodes):
        own = _Below(n.used, max(n.end, goals.get(id(n), 0)))
        under = max([own, *(below[id(c)] for c in n.children.values())])
        below[id(n)] = under
        if n.checkpoint is None:
            continue
        below[id(n)] = replace(under, checkpoint=n.end)
        chance = policy.chance(n.kind, policy.landing(n.end, under.checkpoint, under.end))
        saved = (n.end - above[id(n)]) * chance if id(n) in covered else 0
        worth = policy.value(saved, n.checkpoint.nbytes, clock - n.used)
        out.append(Candidate(worth, n.checkpoint.nbytes, n))
    return out


def _above(nodes: Sequence[Node]) -> dict[int, int]:
    """For each node the end of the last checkpoint above it, or 0."""
    out: dict[int, int] = {}
    for n in nodes:
        up = n.parent
        out[id(n)] = 0 if up is None else up.end if up.checkpoint is not None else out[id(up)]
    return out


def _segments(
    nodes: Sequence[Node], covered: set[int], clock: int, is_cuttable: bool
) -> list[Candidate]:
    out: list[Candidate] = []
    needed: set[int] = set()  # nodes that something below stands on
    for n in reversed(nodes):
        if id(n) in needed or n.holds_bytes:
            needed.add(id(n.parent))
        if n.segment is None or id(n) in needed:
            continue
        of_use = id(n) in covered and (is_cuttable or n.checkpoint is not None)
        nbytes = n.segment.piece.nbytes
        saved = (n.end - n.start) * policy.chance(n.kind) if of_use else 0
        out.append(Candidate(policy.value(saved, nbytes, clock - n.used), nbytes, n, True))
    return out


def _state(holder: Holder, clock: int) -> Candidate:
    """A state, with what goes with it; what another state also covers is not lost."""
    own = [n for n in holder.node.path() if n.holders == [holder]]
    orphans = sum(n.checkpoint.nbytes for n in own if n.checkpoint is not None)
    length = holder.sequence.length
    saved = length - (own[0].start if own else length)
    worth = policy.value(saved, holder.nbytes, clock - holder.used)
    return Candidate(worth, holder.nbytes + orphans, holder)
