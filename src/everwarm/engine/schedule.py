"""Whose turn it is on the engine's thread: all that decode, or one prefill. No MLX here.

Lanes step together, so they are one party; prefills are the other, and share the time with it by
seconds, since a chunk takes many times a decode step. Of several prefills the shortest is next, and
whoever it passes ages: a long prompt waits for some others' tokens, never for ever. A short prefill
does not wait for its share: it goes after one step, and what it took is owed by the long ones.

    lanes     [step][step][step][step]             [step][step]         [step][step][step][step]
    prefills                          [ one chunk ]            [a short]                        [
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PASSED: Final = 0.5
"""What a passed prefill is given credit for: this part of the tokens that others read meanwhile."""


class Schedule:
    """Seconds of both parties, and credits of those that prefill. Live: engine thread only.

    `prefill_share`: the part of the time that prefills may take while others decode.
    """

    def __init__(self, prefill_share: float) -> None:
        self._weight = (1 - prefill_share) / prefill_share
        self._ahead_s = 0.0
        self._is_shared = False
        self._has_stepped = True
        self._credit: dict[str, float] = {}

    def next(self, left: Mapping[str, int], *, decoding: bool, short: int = 0) -> str | None:
        """The prefill that is next, of the tokens that each has `left`; None: the lanes are.

        `short`: one of no more tokens than these goes after one step of the lanes.
        """
        for job_id in self._credit.keys() - left.keys():
            del self._credit[job_id]
        self._is_shared = bool(left) and decoding
        if not self._is_shared:
            self._ahead_s = 0.0
        if not left:
            return None
        first = min(left, key=lambda k: left[k] - self._credit.get(k, 0.0))
        is_short = left[first] <= short and self._has_stepped
        return None if decoding and self._ahead_s > 0 and not is_short else first

    def decoded(self, took_s: float) -> None:
        """Note a step of the lanes."""
        self._has_stepped = True
        self._ahead_s -= took_s if self._is_shared else 0.0

    def prefilled(self, job_id: str, n_tokens: int, took_s: float, left: Mapping[str, int]) -> None:
        """Note a chunk of one prefill; the others of those `left` were passed."""
        self._has_stepped = False
        self._ahead_s += took_s * self._weight if self._is_shared else 0.0
        for other in left.keys() - {job_id}:
            self._credit[other] = self._credit.get(other, 0.0) + PASSED * n_tokens
