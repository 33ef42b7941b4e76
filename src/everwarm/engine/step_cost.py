"""What a step costs: a part per call, and a part for each of its n. Learnt from steps. No MLX here.

took_s   |-- per call --|-------- n of them --------|
"""

from __future__ import annotations

from typing import Final

SURPRISE: Final = 3.0
"""A step that is so many times quicker than expected means that what is known holds no more."""
TELLING_SPREAD: Final = 0.15
"""Of the mean n: steps that differ less do not tell the part per call."""


class StepCost:
    """The straight line nearest to the steps. Live: engine thread only.

    `memory`: the weight of what is known, against one new step. `per_call_s`: the most that it is
    taken to be before steps of several sizes have told (`is_told`). `each_s` is None until one
    came.
    """

    def __init__(self, memory: float, per_call_s: float = 0.0) -> None:
        self._memory = memory
        self._weight = self._n = self._nn = self._s = self._ns = 0.0
        self.per_call_s = per_call_s
        self.each_s: float | None = None
        self.is_told = False

    def expected_s(self, n: int) -> float:
        """The seconds of a step of n; 0 where nothing is known."""
        return 0.0 if self.each_s is None else self.per_call_s + self.each_s * n

    def learn(self, n: int, took_s: float) -> None:
        """Note a step. Steps of all sizes tell: small ones the part per call."""
        if self.expected_s(n) > SURPRISE * took_s:
            self._weight = self._n = self._nn = self._s = self._ns = 0.0
        self._weight = self._memory * self._weight + 1
        self._n = self._memory * self._n + n
        self._nn = self._memory * self._nn + n * n
        self._s = self._memory * self._s + took_s
        self._ns = self._memory * self._ns + n * took_s
        self._fit()

    def _fit(self) -> None:
        """Where all were of one size: through their mean, and the part per call that is known."""
        n, s = self._n / self._weight, self._s / self._weight
        spread = self._nn / self._weight - n * n
        if spread > (TELLING_SPREAD * n) ** 2:
            slope = (self._ns / self._weight - n * s) / spread
            self.each_s = min(max(slope, 0.0), s / n)
            self.per_call_s = s - self.each_s * n
            self.is_told = True
        else:
            self.per_call_s = min(self.per_call_s, s)
            self.each_s = (s - self.per_call_s) / n
