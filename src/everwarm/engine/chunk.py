"""How many tokens a prefill reads at once, learnt from what its steps took. No MLX here.

A step costs a part per call (a large model's weights are read once) and a part per token. A step
should be short, so that others get their turn and a stop is heard; but where the part per call is
large, short steps read few tokens for the same seconds: it takes at most half of a step.

All sizes are the whole step halved some times, so that every cut lies on the grid of a smaller one.
"""

from __future__ import annotations

from typing import Final

from everwarm.engine.step_cost import StepCost

ALONE_S: Final = 1.0
SHARED_S: Final = 0.25
LEAST: Final = 32
MEMORY: Final = 0.5


class ChunkSize:
    """The size of a prefill's steps, for all jobs of one model. Live: engine thread only."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._cost = StepCost(MEMORY)
        self._n_steps = 0

    def size(self, *, is_shared: bool) -> int:
        """Tokens for the next step. `is_shared`: another job runs beside it."""
        per_call_s, per_token_s = self._cost.per_call_s, self._cost.each_s
        if per_token_s is None or not self._cost.is_told:
            return self._fitting(LEAST << self._n_steps)  # the machine may be slow
        if per_token_s <= 0:
            return self._whole
        within_s = (SHARED_S if is_shared else ALONE_S) - per_call_s
        worth_a_call = per_call_s / per_token_s
        least = self._fitting(worth_a_call)
        if least < worth_a_call:
            least = min(2 * least, self._whole)
        return max(self._fitting(within_s / per_token_s), least)

    def learn(self, n_tokens: int, took_s: float) -> None:
        """Note a step."""
        self._n_steps += 1
        self._cost.learn(n_tokens, took_s)

    def _fitting(self, wanted: float) -> int:
        """The whole step, halved until it is no larger than wanted, but never below `LEAST`."""
        size = self._whole
        while size > wanted and size // 2 >= LEAST and size % 2 == 0:
            size //= 2
        return size
