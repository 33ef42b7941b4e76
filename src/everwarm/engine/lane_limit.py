"""How many replies are written at once, where each should get so many tokens a second. No MLX here.

What a step of n lanes takes is learnt from the steps themselves, with the conversations as long as
they are now. Where one more would slow all of them below the floor, it waits for a reply to end.
"""

from __future__ import annotations

import math
from typing import Final

from everwarm.engine.step_cost import StepCost

MEMORY: Final = 0.95


class LaneLimit:
    """`least_tokens_per_s`: of each reply; 0: no limit. Live: engine thread only."""

    def __init__(self, least_tokens_per_s: float = 0.0) -> None:
        self._least = least_tokens_per_s
        self._cost = StepCost(MEMORY, math.inf)  # one more costs nothing, until steps tell

    def learn(self, n_lanes: int, took_s: float) -> None:
        """Note a step."""
        self._cost.learn(n_lanes, took_s)

    def why_not(self, n_lanes: int) -> str:
        """Why so many are too many, for people; "" where they are not. One is never too many."""
        if n_lanes <= 1 or self._cost.expected_s(n_lanes) * self._least <= 1.0:
            return ""
        return (
            f"waits for another reply to end: {n_lanes} at once would each get fewer than "
            f"{self._least:g} tokens a second (least_tokens_per_s)"
        )
