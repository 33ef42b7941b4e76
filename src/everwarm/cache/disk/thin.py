"""Which checkpoints of a conversation may leave the disk? The rules are those of memory. Pure.

A checkpoint that memory still has stays: a restart finds all positions again that memory has, and
nothing goes that would only be written again. So do pinned ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from everwarm.cache import policy
from everwarm.cache.policy import CachePolicy, CheckpointInfo
from everwarm.cache.tree import Node
from everwarm.tokens import Mark

LAST_TO_GO: Final = 1 << 40


def superseded(path: Sequence[Node], rules: CachePolicy, most_bytes: int) -> list[Node]:
    """The nodes of a path whose checkpoints should be deleted, so that the rules hold on disk."""
    head = max((n.end for n in path if n.kind == "system"), default=0)
    marks = next((h.marks for n in reversed(path) for h in n.holders), ())
    left = [n for n in path if n.shelved_checkpoint is not None and not n.is_pinned]
    out: list[Node] = []
    while True:
        index = rules.to_drop([_held(n, head, marks) for n in left], most_bytes)
        if index is None or left[index].checkpoint is not None:
            return out
        out.append(left.pop(index))


def _held(node: Node, head: int, marks: Sequence[Mark]) -> CheckpointInfo:
    assert node.shelved_checkpoint is not None
    nbytes = node.shelved_checkpoint.nbytes
    heavy = node.kind == "system" or len(node.children) > 1
    weight = policy.HEAVY if heavy or policy.begins_turn(node.end, marks, nbytes) else 1
    if node.checkpoint is not None:
        weight = LAST_TO_GO
    return CheckpointInfo(node.end, weight, node.resumed, nbytes, node.end <= head)
