"""Checkpoints that are taken for the disk alone, so that little is lost should the engine die.

    a busy state   0 ── 2048 ── 4096 ── 6144 ── now        a stopgap at each, as it gets there
    on disk        rows and the stopgap of 4096; that of 2048 is deleted, that of 6144 on its way

Only layers that cannot be cut need them. A stopgap takes no part in the rules that say which
checkpoints a conversation keeps: it goes when a later checkpoint is on disk. One that a request
goes on from, or that another conversation may still need, is a checkpoint like others from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from everwarm.cache.tree import Node

MOST_WAITING: Final = 2
"""Stopgaps of one busy state that wait in memory for the disk."""
DAY_SHARE: Final = 4
"""Stopgaps are taken within one part in this many of the day's write budget, which conversations
that are over use as well: most stopgaps are deleted soon, and may not keep these from the disk."""


class DayOfWrites(Protocol):
    """What the disk tier says of its day, in bytes."""

    @property
    def written_today_bytes(self) -> int: ...

    @property
    def queued_bytes(self) -> int: ...

    @property
    def write_budget_bytes(self) -> int: ...


def is_wanted(node: Node, nbytes: int, disk: DayOfWrites) -> bool:
    """Whether a busy state that ends at this node should take one of so many bytes: not where the
    disk lags, nor where the day's writes are for others."""
    coming = disk.written_today_bytes + disk.queued_bytes + nbytes
    if node.checkpoint is not None or coming > disk.write_budget_bytes // DAY_SHARE:
        return False
    stopgaps = [n for n in node.path() if n.is_stopgap and n.checkpoint is not None]
    return sum(n.shelved_checkpoint is None for n in stopgaps) < MOST_WAITING


def resume(node: Node, request: int) -> None:
    """Note which request goes on from here, which makes it worth a checkpoint like others."""
    node.resumed, node.is_stopgap = request, False


def passed(path: Sequence[Node]) -> list[Node]:
    """The stopgaps that should go now that a checkpoint at the end of this path is on disk.

    None of these is a stopgap any more.
    """
    out: list[Node] = []
    is_shared = False
    for node in reversed(path[:-1]):
        is_shared = is_shared or len(node.children) > 1
        if node.is_stopgap:
            node.is_stopgap = False
            out += [] if is_shared or node.is_pinned else [node]
    return out
