"""The tree as people see it: plain values, made between two steps. Engine thread only.

Where a piece lies on several nodes, each counts its part: of a piece of 900 rows, nodes of 300 and
600 rows count a third and two thirds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from everwarm.cache import tree
from everwarm.cache.evict import candidates
from everwarm.cache.tree import Holder, Node
from everwarm.job import Path, TreeNode
from everwarm.tokens import tokens_of

_RangesOf = Callable[[Node], Iterable[tuple[int, int, int]]]


def view(
    roots: Mapping[str, Node],
    states: Sequence[Holder],
    clock: int,
    paths: Mapping[str, Sequence[Path]],
    *,
    is_cuttable: bool,
) -> list[TreeNode]:
    """All nodes, parents before children; `paths` name those that they lead through."""
    every = [n for root in roots.values() for n in root.below()]
    nodes = [n for n in every if n.parent is not None]
    in_memory, on_disk = _shares(nodes, _held), _shares(nodes, _shelved)
    names = _names(roots, paths)
    worth = _worth(every, states, clock, is_cuttable)
    return [
        TreeNode(
            id=n.id,
            parent=n.parent.id if n.parent and n.parent.parent else None,
            start=n.start,
            end=n.end,
            nbytes=in_memory[n.id] + (n.checkpoint.nbytes if n.checkpoint else 0),
            disk_nbytes=on_disk[n.id]
            + (n.shelved_checkpoint.nbytes if n.shelved_checkpoint else 0),
            checkpoints=int(n.checkpoint is not None or n.shelved_checkpoint is not None),
            is_pinned=n.is_pinned,
            is_running=any(h.busy for h in n.holders),
            names=tuple(names[n.id]),
            value=worth.get(n.id),
        )
        for n in nodes
    ]


def _held(node: Node) -> Iterable[tuple[int, int, int]]:
    """(what, its bytes, how many of its rows lie here) for what holds a node's rows in memory."""
    for h in node.holders[:1]:
        yield id(h), h.sequence.nbytes, len(node.tokens)
    if node.segment is not None:
        yield id(node.segment.piece), node.segment.piece.nbytes, len(node.tokens)


def _shelved(node: Node) -> Iterable[tuple[int, int, int]]:
    for s in node.shelved:
        rows = min(s.end, node.end) - max(s.start, node.start)
        yield hash(s.piece), s.piece.nbytes, rows


def _shares(nodes: Iterable[Node], of: _RangesOf) -> dict[int, int]:
    rows: dict[int, int] = defaultdict(int)
    listed = [(n.id, *entry) for n in nodes for entry in of(n)]
    for _, what, _, here in listed:
        rows[what] += here
    out: dict[int, int] = defaultdict(int)
    for node, what, nbytes, here in listed:
        out[node] += nbytes * here // max(rows[what], 1)
    return out


def _names(
    roots: Mapping[str, Node], paths: Mapping[str, Sequence[Path]]
) -> dict[int, dict[str, None]]:
    out: dict[int, dict[str, None]] = defaultdict(dict)
    for name, some in paths.items():
        for p in some:
            root = roots.get(p.namespace)
            for step in tree.match(root, p.tokens) if root is not None else []:
                out[step.node.id][name] = None
    return out


def _worth(
    nodes: Sequence[Node], states: Sequence[Holder], clock: int, is_cuttable: bool
) -> dict[int, float]:
    """By node; what a state covers is worth what the state is."""
    out: dict[int, float] = {}
    for c in reversed(candidates(nodes, states, clock, is_cuttable=is_cuttable)):
        own = c.victim.node.path() if isinstance(c.victim, Holder) else [c.victim]
        for n in own:
            out[n.id] = min(c.worth, out.get(n.id, c.worth))
    return out


def counted(nodes: Sequence[Node]) -> dict[str, int]:
    """What hangs on these nodes, in numbers."""
    return {
        "segments": sum(n.segment is not None for n in nodes),
        "checkpoints": sum(n.checkpoint is not None for n in nodes),
        "tree_tokens": sum(len(n.tokens) for n in nodes),
    }


def node_of(roots: Mapping[str, Node], node_id: int) -> tuple[str, Node] | None:
    """A node by its id, and its namespace."""
    for name, root in roots.items():
        for n in root.below():
            if n.id == node_id and n.parent is not None:
                return name, n
    return None


def paths_below(roots: Mapping[str, Node], node_id: int) -> list[Path]:
    """What to drop so that a node goes with all behind it. Empty: there is no such node."""
    found = node_of(roots, node_id)
    if found is None:
        return []
    namespace, node = found
    out = []
    for end in (n for n in node.below() if not n.children):
        tokens = tokens_of()
        for n in end.path():
            tokens.extend(n.tokens)
        out.append(Path(namespace, tokens, node.start))
    return out
