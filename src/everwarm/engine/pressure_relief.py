"""Before a job begins: where the machine runs short of memory, give some back first.

A job waits while idle states are on their way to disk, but never for long: memory pressure is a
reason to make room, not to refuse work. Only in an emergency is dropped what the disk does not
have. Live: engine thread only; anybody may look at the figures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import mlx.core as mx

from everwarm.cache.cache import Cache
from everwarm.cache.relief import relieve
from everwarm.engine.memory_pressure import Pressure
from everwarm.job import Job

LOOK_EVERY_S: Final = 1.0
REST_S: Final = 10.0
"""Until what was given back shows in what the system says of the last ten seconds."""
WAIT_S: Final = 5.0
"""The longest that a job waits for states on their way to disk."""
WARNING_PART: Final = 4
"""Where nobody says how much is missing: one part in this many of what is held goes."""
log = logging.getLogger("everwarm.engine")


class PressureRelief:
    """`read`: asks the machine. `given_back_bytes`: of states and pieces, since the start."""

    def __init__(
        self,
        cache: Cache,
        read: Callable[[], Pressure],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache, self._read, self._clock = cache, read, clock
        self._look_at = self._rest_until = float("-inf")
        self._since: float | None = None
        self.pressure = Pressure()
        self.given_back_bytes = 0
        self._freed = 0

    def may_begin(self, waiting: Sequence[Job]) -> bool:
        """Whether the first of these jobs may begin. Cost: the tree is walked under pressure."""
        now = self._clock()
        if now < self._rest_until:
            return True
        if now >= self._look_at:
            self.pressure, self._look_at = self._read(), now + LOOK_EVERY_S
        if self.pressure.level == "none":
            self._since = None
            return True
        is_first = self._since is None
        if self._since is None:
            self._since, self._freed = now, 0
        wanted = self._wanted()
        # Asked once: the disk never takes some states, and would be waited for in vain.
        found = relieve(
            self._cache, wanted - self._freed, waiting, may_lose=False, may_write=is_first
        )
        self._note(found.freed)
        if self._freed < wanted and found.is_coming and now - self._since < WAIT_S:
            return False
        if self._freed < wanted and self.pressure.level == "critical":
            lost = relieve(self._cache, wanted - self._freed, waiting, may_lose=True)
            self._note(lost.freed)
        self._end(now)
        return True

    def _wanted(self) -> int:
        """Bytes to give back, counted from where this pressure began."""
        if self.pressure.missing_bytes is not None:
            return self.pressure.missing_bytes
        held = self._cache.nbytes + self._freed
        return held if self.pressure.level == "critical" else held // WARNING_PART

    def _note(self, freed: int) -> None:
        self._freed += freed
        self.given_back_bytes += freed

    def _end(self, now: float) -> None:
        assert self._since is not None
        mx.clear_cache()  # what was dropped, and what MLX keeps for itself, goes to the system
        log.warning(
            "memory_pressure=%s given_back_mb=%.1f waited_s=%.1f why=%r",
            self.pressure.level, self._freed / 1e6, now - self._since, self.pressure.why,
        )  # fmt: skip
        self._since, self._rest_until, self._look_at = None, now + REST_S, now + REST_S
