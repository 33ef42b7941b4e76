"""How an engine process ended, and how that is said to people."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from everwarm.errors import EngineDied

FROM_OUTSIDE: Final = frozenset(
    {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
)
"""Signals that somebody sends; a fault of the process raises others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The end of a process that was not told to end.

    `code` as in `Popen.returncode`: negative for a signal; None: it never began. `hang`: why we
    killed it, where we did; `link`: the same, where it lived on without its link. `lived_s`: from
    its start on.
    """

    code: int | None
    words: str
    lived_s: float
    hang: str | None = None
    link: str | None = None

    @property
    def is_from_outside(self) -> bool:
        """Somebody killed it, which is no fault of what it did. On SIGTERM it exits with 0."""
        if self.hang is not None or self.link is not None or self.code is None:
            return False
        return self.code == 0 or -self.code in FROM_OUTSIDE

    @property
    def how(self) -> str:
        """What ended it, to stand behind "The engine"."""
        if self.hang is not None:
            return f"hung and was killed ({self.hang})"
        if self.link is not None:
            return f"was killed ({self.link.rstrip('.')})"
        if self.code is None:
            return "could not be started"
        if self.code < 0:
            return f"was ended by {_name(-self.code)}"
        return f"ended with exit code {self.code}"

    def error(self) -> EngineDied:
        """What the turns that ran are told."""
        return EngineDied(
            f"The engine {self.how} while it answered. It starts again: send the request once "
            "more, and what was kept is not read again."
        )


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
