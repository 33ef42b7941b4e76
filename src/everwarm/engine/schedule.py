"""Who is next on the engine's thread: by seconds used, not by steps taken. No MLX here.

A step of a long prefill takes many times a decode step, so turns counted in steps would starve
whoever decodes. Each job is charged the seconds of its steps; the least charged one is next.
"""

from __future__ import annotations

from collections.abc import Iterable


class Schedule:
    """Charges per running job, in seconds; who waits is not in it. Live: engine thread only.

    `prefill_share`: the part of the time that a prefill may take while another job decodes.
    """

    def __init__(self, prefill_share: float) -> None:
        self._prefill_weight = (1 - prefill_share) / prefill_share
        self._used_s: dict[str, float] = {}

    def add(self, job_id: str) -> None:
        """A job that begins is level with the least charged one: it neither waits nor hogs."""
        self._used_s[job_id] = min(self._used_s.values(), default=0.0)

    def remove(self, job_id: str) -> None:
        """The job has ended; one that never began is no mistake."""
        self._used_s.pop(job_id, None)

    @property
    def has_company(self) -> bool:
        """Whether several jobs run."""
        return len(self._used_s) > 1

    def next(self, ready: Iterable[str]) -> str:
        """The least charged of the jobs that can take a step."""
        return min(ready, key=self._used_s.__getitem__)

    def charge(self, job_id: str, took_s: float, *, prefilling: bool) -> None:
        """Book a step. Only a prefill that has company is weighed."""
        weighed = prefilling and self.has_company
        self._used_s[job_id] += took_s * (self._prefill_weight if weighed else 1.0)
