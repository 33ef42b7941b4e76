"""How long to wait before an engine that died is started again."""

from __future__ import annotations

from typing import Final

LONGEST_S: Final = 60.0


class Restarts:
    """Growing waits: 0, 1, 2, 4 and so on seconds, up to a minute. A good turn begins anew, and so
    does a life that was longer than any wait.

    Live: the supervisor's thread; anybody may ask how many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._in_a_row = 0
        self._good_turns = 0

    def wait_s(self, good_turns: int, lived_s: float) -> float:
        """What to wait now. `good_turns`: how many turns were answered, ever. `lived_s`: how long
        the process that died had lived."""
        if good_turns > self._good_turns or lived_s > LONGEST_S:
            self._in_a_row = 0
        self._good_turns = good_turns
        wait_s = 2.0 ** (self._in_a_row - 1) if self._in_a_row else 0.0
        self.count += 1
        self._in_a_row = min(self._in_a_row + 1, 10)
        return min(wait_s, LONGEST_S)
