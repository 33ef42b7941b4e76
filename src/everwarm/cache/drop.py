"""Drop one conversation from memory, and leave what others share with it. Engine thread only.

    root ──[0, 300)── A ──[300, 900)── B            the path ends at B, `keep` is 300
                       └──[300, 500)── C            another conversation: A stays, B is dropped

This goes from the end of the path upwards, as far as nothing else hangs on it. A state that is
dropped leaves the rows of what stays as segments. Busy states, and all above them, are left alone.
"""

from __future__ import annotations

from everwarm.cache import tree
from everwarm.cache.memory import Memory
from everwarm.cache.tree import Holder
from everwarm.job import Path


def drop_path(memory: Memory, path: Path) -> None:
    """Drop the nodes of a path that are its own, behind its first `keep` tokens."""
    root = memory.root(path.namespace)
    nodes = [s.node for s in tree.match(root, path.tokens) if s.upto == s.node.end]
    for node in nodes:
        if node.start < path.keep < node.end:
            tree.split(node, path.keep)
    for node in reversed(nodes):
        if node.start < path.keep or node.children or any(h.busy for h in node.holders):
            return
        for holder in list(node.holders):
            _leave_shared(memory, holder, path.keep)
            memory.drop(holder)
        assert node.parent is not None
        del node.parent.children[node.tokens[0]]


def _leave_shared(memory: Memory, holder: Holder, keep: int) -> None:
    for n in holder.node.path():
        if n.holders == [holder] and (n.end <= keep or len(n.children) > 1):
            n.segment = memory.cut(holder, n)
