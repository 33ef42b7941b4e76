"""Keep the checkpoints of one conversation few and well spread."""

from __future__ import annotations

from collections.abc import Sequence

from everwarm.cache import policy
from everwarm.cache.policy import CachePolicy, CheckpointInfo
from everwarm.cache.tree import Holder, Node
from everwarm.tokens import Mark


def thin(holder: Holder, rules: CachePolicy, most_bytes: int) -> None:
    """Drop checkpoints on a state's path until the rules hold."""
    path = holder.node.path()
    head = max((n.end for n in path if n.kind == "system"), default=0)
    while True:
        held = [n for n in path if n.checkpoint is not None]
        index = rules.to_drop([_held(n, head, holder.marks) for n in held], most_bytes)
        if index is None:
            return
        held[index].checkpoint = None


def _held(node: Node, head: int, marks: Sequence[Mark]) -> CheckpointInfo:
    assert node.checkpoint is not None
    nbytes = node.checkpoint.nbytes
    heavy = node.kind == "system" or len(node.children) > 1
    weight = policy.HEAVY if heavy or policy.begins_turn(node.end, marks, nbytes) else 1
    return CheckpointInfo(node.end, weight, node.resumed, nbytes, node.end <= head)
