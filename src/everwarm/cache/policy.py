"""Pure functions: where to checkpoint, and what to drop.

A checkpoint ends a prefill chunk and takes bytes; it is needed only where a model has layers that
cannot be cut. `everwarm bench policy` replays recorded sessions under other values and
rules (`lab/simulate.py`); what it showed is in `docs/lab.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from everwarm.tokens import Mark, MarkKind

LEAST_DISTANCE: Final = 8
WORTH_A_TOKEN: Final = 1 << 20
"""Bytes of a checkpoint that reading one token again is worth."""
HEAVY: Final = 4
"""Checkpoints of system prompts, branches and where users' messages begin weigh so much more."""
CONVERSATION_SHARE: Final = 4
"""One conversation's checkpoints take at most one part in this many of the whole budget."""
WRITE_SHARE: Final = 16
"""One part in this many of the memory budget is for copies that wait to be written to disk."""
CHANCE: Final = 1 / 16
"""How likely a request goes back to a given position, where 1 is to go on from an end."""
NEAR: Final = 512
"""Going back by fewer tokens than this is about as likely wherever it leads."""


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint that a conversation holds, as a rule sees it.

    `used`: the number of the last request that went on from it or took it at a mark; 0: none.
    `in_head`: it stands within tools and system prompt, or at their end.
    """

    at: int
    weight: int = 1
    used: int = 0
    nbytes: int = 0
    in_head: bool = False


Rule = Callable[[Sequence[CheckpointInfo]], int | None]
"""Gives the index of the checkpoint to be dropped; None: none may be. Positions ascend."""


def coverage(held: Sequence[CheckpointInfo]) -> int | None:
    """Choose the one whose loss costs least: a request there reads again from the one before.

        0 ───── a ── b ──── c ─ d      without c, a request that goes on there reads (b, c] again

    Never one that the conversation's last two requests used, nor the last, where it goes on.
    """
    recent = sorted({h.used for h in held if h.used})[-2:]
    best: tuple[int, int] | None = None
    for i in range(len(held) - 1):
        if held[i].used in recent:
            continue
        before = held[i - 1].at if i else 0
        lost = (held[i].at - before) * held[i].weight
        if best is None or lost < best[0]:
            best = (lost, i)
    return None if best is None else best[1]


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Where to checkpoint and which to keep. The defaults are the product.

    Grids are distances in tokens, within tools and system prompt (the head) and behind; None: no
    grid. The head's is wider where more than `max_in_head` would fit. Head and rest are counted
    apart: a date or a tool changes in the head long after a conversation outgrew it.
    """

    max_checkpoints: int = 16
    rule: Rule = coverage
    system_grid: int | None = 512
    grid: int | None = 8192
    marks: frozenset[MarkKind] = frozenset(("system", "user", "last", "prompt"))
    at_branches: bool = True
    max_in_head: int = 16

    def positions(
        self, start: int, end: int, marks: Sequence[Mark], *, branch: int = 0, nbytes: int = 0
    ) -> dict[int, MarkKind | None]:
        """Positions in (start, end] at which a prefill should take a checkpoint, with their kinds.

        `branch`: where the prompt leaves everything that was ever read. `nbytes`: what the last
        checkpoint took; large ones stand further apart. Of two that are too near the earlier is
        taken, which serves more; the ends of system and prompt always are.
        """
        wanted: dict[int, MarkKind | None] = dict.fromkeys(self._grids(end, marks))
        if self.at_branches:
            wanted[branch] = None
        wanted |= {m.at: m.kind for m in marks if m.kind in self.marks}
        out: dict[int, MarkKind | None] = {}
        last, least = start, least_distance(nbytes)
        for at in sorted(wanted):
            if start < at <= end and (at - last >= least or wanted[at] in ("system", "prompt")):
                out[at], last = wanted[at], at
        return out

    def to_drop(self, held: Sequence[CheckpointInfo], most_bytes: int) -> int | None:
        """The index of a checkpoint that a conversation should drop; None: all may stay."""
        n = sum(h.in_head for h in held)
        if n > self.max_in_head:
            return self.rule(held[:n])
        if len(held) - n > self.max_checkpoints:
            start = held[n - 1].at if n else 0
            found = self.rule([replace(h, at=h.at - start) for h in held[n:]])
            return None if found is None else n + found
        if sum(h.nbytes for h in held) > most_bytes:
            return self.rule(held)
        return None

    def _grids(self, end: int, marks: Sequence[Mark]) -> list[int]:
        system = max((m.at for m in marks if m.kind == "system"), default=0)
        out: list[int] = []
        if self.system_grid is not None and self.max_in_head:
            step = self.system_grid * -(-system // (self.system_grid * self.max_in_head))
            out += range(step, min(system, end + 1), step) if step else ()
        if self.grid is not None:
            out += range(self.grid, end + 1, self.grid)
        return out


def least_distance(nbytes: int) -> int:
    """Two checkpoints of this size stand no nearer: 8 tokens at 5 MB, 415 at 436 MB."""
    return max(LEAST_DISTANCE, nbytes // WORTH_A_TOKEN)


def begins_turn(at: int, marks: Sequence[Mark], nbytes: int) -> bool:
    """Whether a user's message begins at a checkpoint, or too near behind it for another one.

    A request with an edited message goes on from here. Mostly it is where the last reply ends.
    """
    return any(m.kind == "user" and 0 <= m.at - at < least_distance(nbytes) for m in marks)


def chance(kind: MarkKind | None, landing: float = 1.0) -> float:
    """How likely a piece is needed, where 1 is a live state's end. System prompts often are."""
    return 1.0 if kind == "system" else CHANCE * landing


def landing(at: int, behind: int | None, end: int) -> float:
    """How likely a request that leaves a conversation goes on from its checkpoint at `at`.

        0 ───── at ─────── behind ── end      a request that leaves in [at, behind) goes on from at

    `behind`: the next checkpoint; None: there is none. Twice as far back is half as likely, so the
    checkpoints that stay stand closer together the nearer they are to the end.
    """
    near = end - behind + NEAR if behind is not None else NEAR / 2
    return math.log((end - at + NEAR) / near)


def value(saved_tokens: float, nbytes: int, age: int) -> float:
    """What keeping something is worth per byte: tokens not read again, by how lately it was used.

    `age` counts requests since its last use.
    """
    return saved_tokens / (nbytes + 1) / (1 + age)
