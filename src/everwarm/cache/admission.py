"""May this prompt begin now, and in which way? Room for it is made in `memory.py`.

While others run, a prompt waits for them rather than have kept conversations dropped. When nothing
else runs, it takes the first way that fits: the plan; a rewind instead of a copy; one file at a
time from disk; a rewind that loses the tail; what is in memory alone; a cold start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace

from everwarm.cache import tree
from everwarm.cache.memory import Memory
from everwarm.cache.policy import WRITE_SHARE
from everwarm.cache.restore import RestorePlan, plan
from everwarm.errors import TooLong


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Wait for room: this needs `nbytes`, and `free` could be had beside what runs."""

    nbytes: int
    free: int

    def __str__(self) -> str:
        return f"needs {self.nbytes / 1e9:,.2f} GB, {self.free / 1e9:,.2f} GB are free"


@dataclass(frozen=True, slots=True)
class Need:
    """A prompt of `n_tokens` whose state may grow to `rows`, which takes `bytes_at(rows)`."""

    n_tokens: int
    rows: int
    bytes_at: Callable[[int], int]

    @property
    def nbytes(self) -> int:
        return self.bytes_at(self.rows)

    def beyond(self, chosen: RestorePlan) -> int:
        """Bytes that a plan takes beyond what is held now."""
        in_flight = chosen.in_flight_nbytes
        if chosen.holder is None or chosen.way not in ("move", "rewind"):
            return self.nbytes + in_flight
        own = chosen.holder.sequence
        tail = own.live.rows_nbytes(own.length - chosen.base) if chosen.keeps_tail else 0
        return max(self.nbytes - own.nbytes, 0) + tail + in_flight


def admit(
    memory: Memory, steps: list[tree.PathStep], chosen: RestorePlan, need: Need
) -> RestorePlan | NoRoom:
    """The plan to carry out, with room made for it.

    TooLong: it can never fit.
    """
    for way in _ways(memory, steps, chosen, need):
        pieces = [*(s.piece for s in way.segments), way.checkpoint]
        if memory.make_room(need.beyond(way), spare=[way.holder, *pieces]):
            return way
        if memory.can_change:
            return NoRoom(need.beyond(chosen), memory.free)
    raise TooLong(
        f"The prompt has {need.n_tokens:,} tokens; with its reply that takes "
        f"{need.nbytes / 1e6:,.1f} MB of memory, and the budget is {memory.budget / 1e6:,.1f} MB. "
        "Shorten it, unpin what is pinned, or raise memory_budget."
    )


def _ways(
    memory: Memory, steps: list[tree.PathStep], chosen: RestorePlan, need: Need
) -> list[RestorePlan]:
    """The plan, then ways that take less room, each at a higher price than the one before."""
    ways = [chosen]
    if chosen.way in ("fork", "rewind") and chosen.holder is not None and not chosen.holder.busy:
        ways.append(replace(chosen, way="rewind"))
    if chosen.files:
        ways.append(replace(ways[-1], ahead=0))
    if ways[-1].way == "rewind":
        ways.append(replace(ways[-1], keeps_tail=False))
    near = plan(steps, need.n_tokens - 1, is_cuttable=memory.is_cuttable)
    return [*ways, near, RestorePlan(0, "new")]


def longest(bytes_at: Callable[[int], int], budget: int, rows: int) -> int:
    """The longest sequence up to `rows` tokens that fits a budget, with room for one write."""
    most = budget - budget // WRITE_SHARE
    return bisect_right(range(1, rows + 1), most, key=bytes_at)
