"""How the disk is: what went wrong last, when to try again, and what people are told. Live."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

DiskState = Literal["ok", "full", "resting", "read-only", "missing", "failing"]
"""`full`: no space, or the budget is too small. `resting`: the day's write budget is used up."""

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
LOG_EVERY_S: Final = 60.0

_STATES: Final[dict[int, DiskState]] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ESTALE: "missing",
}
_SQLITE: Final[dict[int, DiskState]] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_CANTOPEN: "missing",
}
GB: Final = 10**9
log = logging.getLogger("everwarm.cache")


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """What the files may take. `write_budget_bytes`: for each day.

    None: chosen by the disk, a quarter of the free space; 10 GiB or 5% are always left free.
    """

    budget_bytes: int | None = None
    most_bytes: int = 100 * GB
    keep_free_bytes: int | None = None
    write_budget_bytes: int = 200 * GB
    queue_bytes: int = 2**30


SHOWN: Final = (
    *("state", "why", "pieces", "budget_bytes", "written_today_bytes", "write_budget_bytes"),
)


@dataclass(frozen=True, slots=True)
class DiskStats:
    """Facts for people, and for deciding whether a restore pays."""

    state: DiskState
    why: str
    pieces: int
    nbytes: int
    budget_bytes: int
    queued_bytes: int
    written_today_bytes: int
    write_budget_bytes: int
    read_bytes_per_s: float
    write_bytes_per_s: float
    written: int
    dropped: int
    evicted: int
    damaged: int
    adrift: int
    errors: int

    def for_people(self) -> dict[str, int | float | str]:
        """What the dashboard shows."""
        return {"disk_bytes": self.nbytes} | {f"disk_{x}": getattr(self, x) for x in SHOWN}


@dataclass(frozen=True, slots=True)
class Verified:
    """How many pieces are right, and which were damaged and are deleted now."""

    right: int
    damaged: tuple[str, ...]


class Health:
    """Changed by the I/O thread alone; any thread may look."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.state: DiskState = "ok"
        self.why = ""
        self.errors = 0
        self._wait_s = FIRST_WAIT_S
        self._try_at = float("-inf")
        self._log_at = float("-inf")

    def may_try(self) -> bool:
        """Whether the wait after the last fault is over."""
        return self._clock() >= self._try_at

    def fault(self, e: OSError | sqlite3.Error) -> None:
        """An operation failed: wait before the next, longer each time."""
        self.errors += 1
        if isinstance(e, OSError):
            state = _STATES.get(e.errno or 0, "failing")
            why = e.strerror or type(e).__name__
        else:
            state = _SQLITE.get(getattr(e, "sqlite_errorcode", 0) & 0xFF, "failing")
            why = f"index: {e}"
        self._try_at = self._clock() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        self.note(state, why)

    def note(self, state: DiskState, why: str) -> None:
        """Set the state, and log it at most once a minute."""
        self.state, self.why = state, why
        now = self._clock()
        if now >= self._log_at:
            self._log_at = now + LOG_EVERY_S
            log.warning("disk_state=%s why=%r: conversations stay in memory only", state, why)

    def fine(self) -> None:
        """A piece was written."""
        if self.state != "ok":
            log.info("disk_state=ok")
        self.state, self.why = "ok", ""
        self._wait_s, self._try_at = FIRST_WAIT_S, float("-inf")


class Rate:
    """Bytes a second, as measured lately: a moving mean over transfers of some size."""

    LEAST_BYTES: Final = 2**18

    def __init__(self) -> None:
        self.bytes_per_s = 0.0

    def add(self, nbytes: int, seconds: float) -> None:
        if nbytes >= self.LEAST_BYTES and seconds > 0:
            now = nbytes / seconds
            self.bytes_per_s = now if not self.bytes_per_s else 0.7 * self.bytes_per_s + 0.3 * now
