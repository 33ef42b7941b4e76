"""Which states can no longer be trusted after a fault? Pure: nothing is changed here.

An idle state is whole where its length, its tokens and its place in the tree agree. A busy state
belongs to a lease; one without a lease was left by an operation that failed half-way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from everwarm.cache.tree import Holder


def strays(states: Iterable[Holder], leased: Sequence[Holder]) -> list[Holder]:
    """The states to be dropped."""
    going_on = {id(h) for h in leased}
    return [h for h in states if id(h) not in going_on and (h.busy or not _is_whole(h))]


def _is_whole(holder: Holder) -> bool:
    return holder.sequence.end == holder.sequence.live.length == holder.node.end and all(
        holder in node.holders for node in holder.node.path()
    )
