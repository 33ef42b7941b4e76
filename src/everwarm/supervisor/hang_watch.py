"""Whether an engine hangs: no heartbeat, or no new step while a job is with it.

A step may take as long as the longest of late ones lets expect, and each kill doubles the patience
with the next engine: no slow machine is killed for ever for being slow. Only time in which we ran
ourselves counts: a stop of the whole server (Ctrl-Z, a debugger) is not held against the engine.
"""

from __future__ import annotations

from collections import deque
from typing import Final

TIMES_LONGEST: Final = 20.0
LEAST_SILENT_S: Final = 3.0
"""Six heartbeats: shorter, and a moment without the processor would be a hang."""
LOADING: Final = 10.0
"""While a model is loaded, libraries may keep all threads from running."""
_RECENT: Final = 64
_MOST_PATIENCE: Final = 64.0


class HangWatch:
    """Live: `tick` on the supervisor's thread, the others on the link's; single values cross.

    `timeout_s` 0: nothing is ever a hang. Without a heartbeat an engine hangs after half of it, but
    not before `LEAST_SILENT_S`.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._steps_s: deque[float] = deque(maxlen=_RECENT)
        self._patience = 1.0
        self.begin()

    def begin(self) -> None:
        """A new process starts."""
        self._is_loading = True
        self._heard = self._heard_before = 0
        self._step = self._step_before = 0
        self._silent_s = self._step_s = 0.0

    def beat(self, step: int | None = None) -> None:
        """It was heard of. `step`: the number of its present step, once it is loaded."""
        self._heard += 1
        if step is not None:
            self._is_loading, self._step = False, step

    def good_turn(self) -> None:
        """A turn was answered whole."""
        self._patience = 1.0

    @property
    def longest_step_s(self) -> float:
        """What a step may take."""
        longest = max(self._steps_s, default=0.0)
        return self._patience * max(self._timeout_s, TIMES_LONGEST * longest)

    def tick(self, elapsed_s: float, *, is_busy: bool) -> str | None:
        """Note that we ran for so long; gives why the engine has to be killed, where it has."""
        if self._heard != self._heard_before:
            self._heard_before, self._silent_s = self._heard, 0.0
        self._silent_s += elapsed_s
        if self._step != self._step_before or not is_busy or self._is_loading:
            if self._step_s and self._step != self._step_before:
                self._steps_s.append(self._step_s)
            self._step_before, self._step_s = self._step, 0.0
        self._step_s += elapsed_s
        return self._verdict() if self._timeout_s else None

    def _verdict(self) -> str | None:
        most_silent_s = self._timeout_s * (LOADING if self._is_loading else 0.5)
        most_silent_s = max(most_silent_s, LEAST_SILENT_S)
        if self._silent_s > most_silent_s:
            return f"no heartbeat for {self._silent_s:.0f} s"
        if self._step_s > self.longest_step_s:
            why = f"its step took over {self._step_s:.0f} s"
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
            return why
        return None
