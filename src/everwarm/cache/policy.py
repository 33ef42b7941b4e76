"""Pure functions: where to checkpoint, and what to let go.

A checkpoint costs a call border in prefill and bytes at rest, and is needed only where a model has
layers that cannot be cut. Which are kept matters more than how many: thinned by coverage, sixteen
per conversation lose a third of what thirty-two evicted oldest-first lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from everwarm.tokens import Mark, MarkKind

MAX_CHECKPOINTS: Final = 16
SYSTEM_GRID: Final = 1024
GRID: Final = 8192
LEAST_DISTANCE: Final = 8
HEAVY: Final = 4
"""System and branch checkpoints weigh this much more than others."""


def checkpoint_positions(start: int, end: int, marks: Sequence[Mark]) -> dict[int, MarkKind | None]:
    """Positions in (start, end] at which a prefill should take a checkpoint, with their kinds.

    Marks, a grid of `SYSTEM_GRID` inside tools and system, one of `GRID` behind.
    """
    system_end = max((m.at for m in marks if m.kind == "system"), default=0)
    grid = [*range(SYSTEM_GRID, system_end, SYSTEM_GRID), *range(GRID, end, GRID)]
    wanted: dict[int, MarkKind | None] = dict.fromkeys(grid)
    wanted |= {m.at: m.kind for m in marks}
    out: dict[int, MarkKind | None] = {}
    last = start
    for at in sorted(wanted):
        if start < at <= end and (
            at - last >= LEAST_DISTANCE or wanted[at] in ("system", "prompt")
        ):
            out[at], last = wanted[at], at
    return out


def to_drop(
    positions: Sequence[int], weights: Sequence[int], is_kept: Sequence[bool]
) -> int | None:
    """The index of the checkpoint whose removal leaves the smallest weighted gap; None: keep all.

    `positions` ascend. A gap is the distance between the neighbours of what is removed.
    """
    if len(positions) <= MAX_CHECKPOINTS:
        return None
    best: tuple[int, int] | None = None
    for i in range(len(positions) - 1):
        if is_kept[i]:
            continue
        before = positions[i - 1] if i else 0
        gap = (positions[i + 1] - before) * weights[i]
        if best is None or gap < best[0]:
            best = (gap, i)
    return None if best is None else best[1]


def value(saved_tokens: int, nbytes: int, age: int) -> float:
    """What keeping something is worth per byte: tokens not read again, by how lately it was used.

    `age` counts requests since its last use.
    """
    return saved_tokens / (nbytes + 1) / (1 + age)
