"""Keep the checkpoints of one conversation few and well spread, in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from everwarm.cache import policy
from everwarm.cache.policy import CachePolicy, CheckpointInfo
from everwarm.cache.store import OnDisk, Piece
from everwarm.cache.tree import Holder, Node
from everwarm.tokens import Mark

LAST_TO_GO: Final = 1 << 40
"""Weighs more than any checkpoint that may be deleted."""


def thin(holder: Holder, rules: CachePolicy, most_bytes: int) -> None:
    """Drop checkpoints on a state's path until the rules hold."""
    path = holder.node.path()
    head = _head(path)
    infos = {
        n: _info(n, n.checkpoint, head, holder.marks)
        for n in path
        if n.checkpoint is not None and not n.is_stopgap
    }
    while (index := rules.to_drop(list(infos.values()), most_bytes)) is not None:
        node = list(infos)[index]
        node.checkpoint = None
        del infos[node]


def superseded(path: Sequence[Node], rules: CachePolicy, most_bytes: int) -> list[Node]:
    """The nodes of a path whose checkpoints should be deleted, so that the rules hold on disk.

    A checkpoint that memory still has stays: a restart finds all positions again that memory has,
    and nothing is deleted that would only be written again. So do pinned ones.
    """
    marks = next((h.marks for n in reversed(path) for h in n.holders), ())
    head = _head(path)
    infos = {
        n: _info(n, n.shelved_checkpoint, head, marks)
        for n in path
        if n.shelved_checkpoint is not None and not (n.is_pinned or n.is_stopgap)
    }
    out: list[Node] = []
    while (index := rules.to_drop(list(infos.values()), most_bytes)) is not None:
        node = list(infos)[index]
        if node.checkpoint is not None:
            break
        out.append(node)
        del infos[node]
    return out


def _head(path: Sequence[Node]) -> int:
    """Where tools and system prompt end."""
    return max((n.end for n in path if n.kind == "system"), default=0)


def _info(node: Node, piece: Piece | OnDisk, head: int, marks: Sequence[Mark]) -> CheckpointInfo:
    heavy = node.kind == "system" or len(node.children) > 1
    weight = policy.HEAVY if heavy or policy.begins_turn(node.end, marks, piece.nbytes) else 1
    if isinstance(piece, OnDisk) and node.checkpoint is not None:
        weight = LAST_TO_GO
    return CheckpointInfo(node.end, weight, node.resumed, piece.nbytes, node.end <= head)
