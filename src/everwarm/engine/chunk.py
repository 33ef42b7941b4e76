"""How many tokens a prefill reads at once, learnt from what its steps took. No MLX here.

A step costs a part per call (a large model's weights are read once) and a part per token. A step
should be short, so that others get their turn and a stop is heard; but where the part per call is
large, short steps read few tokens for the same seconds: it takes at most half of a step.

    took_s   |-- per call --|-------- n tokens --------|

All sizes are the whole step halved some times, so that every cut lies on the grid of a smaller one.
"""

from __future__ import annotations

from typing import Final

ALONE_S: Final = 1.0
SHARED_S: Final = 0.25
LEAST: Final = 32
MEMORY: Final = 0.5
"""The weight of what is known, against one new step."""
SURPRISE: Final = 3.0
"""A step that is so many times quicker than expected means that what is known holds no more."""
TELLING_SPREAD: Final = 0.15
"""Of the mean size: sizes that differ less do not tell the part per call."""


class ChunkSize:
    """The size of a prefill's steps, for all jobs of one model. Live: engine thread only."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._weight = self._n = self._nn = self._s = self._ns = 0.0
        self._per_call_s = 0.0
        self._per_token_s: float | None = None

    def size(self, *, is_shared: bool) -> int:
        """Tokens for the next step. `is_shared`: another job runs beside it."""
        if self._per_token_s is None:
            return self._fitting(self._whole // 4)
        if self._per_token_s <= 0:
            return self._whole
        within_s = (SHARED_S if is_shared else ALONE_S) - self._per_call_s
        worth_a_call = self._per_call_s / self._per_token_s
        least = self._fitting(worth_a_call)
        if least < worth_a_call:
            least = min(2 * least, self._whole)
        return max(self._fitting(within_s / self._per_token_s), least)

    def learn(self, n_tokens: int, took_s: float) -> None:
        """Note a step. Steps of all sizes tell: small ones the part per call."""
        expected_s = self._per_call_s + (self._per_token_s or 0.0) * n_tokens
        if expected_s > SURPRISE * took_s:
            self._weight = self._n = self._nn = self._s = self._ns = 0.0
        self._weight = MEMORY * self._weight + 1
        self._n = MEMORY * self._n + n_tokens
        self._nn = MEMORY * self._nn + n_tokens * n_tokens
        self._s = MEMORY * self._s + took_s
        self._ns = MEMORY * self._ns + n_tokens * took_s
        self._fit()

    def _fit(self) -> None:
        """The straight line nearest to the steps; where all were of one size, through their mean
        and the part per call that is known."""
        n, s = self._n / self._weight, self._s / self._weight
        spread = self._nn / self._weight - n * n
        if spread > (TELLING_SPREAD * n) ** 2:
            slope = (self._ns / self._weight - n * s) / spread
            self._per_token_s = min(max(slope, 0.0), s / n)
            self._per_call_s = s - self._per_token_s * n
        else:
            self._per_call_s = min(self._per_call_s, s)
            self._per_token_s = (s - self._per_call_s) / n

    def _fitting(self, wanted: float) -> int:
        """The whole step, halved until it is no larger than wanted, but never below `LEAST`."""
        size = self._whole
        while size > wanted and size // 2 >= LEAST and size % 2 == 0:
            size //= 2
        return size
