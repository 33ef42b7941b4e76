"""In what order waiting jobs begin: as they came, with a bound on how often one is passed.

A job whose state does not fit beside those that run waits for room. Smaller ones that came later
may begin meanwhile; but after `MOST_PASSED` of them nobody newer begins before it does, so that
what runs ends and makes room. A job that waits for another's prefix holds nobody up: it begins
when that one is done.

    waiting    [ a  begins ][ b  no room, passed 3 times ][ c  begins: b is passed again ][ d … ]

No MLX here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

MOST_PASSED: Final = 8
Begin = Literal["begun", "waits", "no room", "gone"]


class AdmissionOrder:
    """How often each waiting job was passed. Live: engine thread only."""

    def __init__(self) -> None:
        self._passed: dict[str, int] = {}

    def offer(self, waiting: Iterable[str], begin: Callable[[str], Begin]) -> None:
        """Let jobs begin, the oldest first."""
        without_room: list[str] = []
        for job_id in waiting:
            match begin(job_id):
                case "begun":
                    for passed in without_room:
                        self._passed[passed] = self._passed.get(passed, 0) + 1
                case "no room":
                    without_room.append(job_id)
                case "waits" | "gone":
                    pass
            if any(self._passed.get(p, 0) >= MOST_PASSED for p in without_room):
                return

    def remove(self, job_id: str) -> None:
        """The job has begun, or is over."""
        self._passed.pop(job_id, None)
