"""Take one conversation out of the tree, and leave what others share with it.

    root ──[0, 300)── A ──[300, 900)── B            the path ends at B, `keep` is 300
                       └──[300, 500)── C            somebody else's: A stays, B goes

From the end of the path upwards, as far as nothing else hangs on it. A state that goes leaves the
rows of what stays as segments. Busy states, and all above them, are left alone. Engine thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from everwarm.cache import tree
from everwarm.cache.tree import Holder, Node, Segment
from everwarm.job import Path

Cut = Callable[[Holder, Node], Segment | None]
"""Copies a node's rows out of a state; None: there is no room for them."""


def forget(root: Node, path: Path, cut: Cut) -> Iterator[Holder]:
    """Remove the nodes of a path that are its own, behind its first `keep` tokens.

    Gives the states to be dropped, while they still stand in the tree.
    """
    nodes = [s.node for s in tree.match(root, path.tokens) if s.upto == s.node.end]
    for node in nodes:
        if node.start < path.keep < node.end:
            tree.split(node, path.keep)
    for node in reversed(nodes):
        if node.start < path.keep or node.children or any(h.busy for h in node.holders):
            return
        for holder in list(node.holders):
            _leave_shared(holder, path.keep, cut)
            yield holder
        assert node.parent is not None
        del node.parent.children[node.tokens[0]]


def _leave_shared(holder: Holder, keep: int, cut: Cut) -> None:
    for n in holder.node.path():
        if n.holders == [holder] and (n.end <= keep or len(n.children) > 1):
            n.segment = cut(holder, n)
