"""Logs a line for each request that is refused, and bounds how many lines there are.

    refused=400 method=POST path=/v1/messages param=top_k code=- client=opencode

What a client chose is cut and spelled in plain letters. Nothing of the body is in a line, and no
error message. A client that retries in a loop is logged a few times a minute; the next line says
how many were left out.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from everwarm.prompt.bounded import Bounded

log = logging.getLogger("everwarm.refused")
_FAULT: Final = "everwarm.fault"
"""In a request's scope: the parameter and the code of the error that it is answered with."""
CANCELLED: Final = 499
MINUTE_S: Final = 60.0
SAME_A_MINUTE: Final = 5
ALL_A_MINUTE: Final = 60
_MOST_CHARS: Final = 96
_ODD = re.compile(r"[^A-Za-z0-9/_.:\[\]-]")
_PRODUCT = re.compile(r"[A-Za-z0-9._-]{1,40}")


def client_of(user_agent: str) -> str | None:
    """The client program: the first word of its User-Agent."""
    found = _PRODUCT.match(user_agent)
    return found[0] if found else None


def blame(scope: Any, error: Exception) -> None:
    """Note an error's parameter and code in the scope, so that the log line can name them.

    Not the error itself: its frames hold the scope, and all that the request sent.
    """
    scope[_FAULT] = getattr(error, "param", None), getattr(error, "code", None)


class Refusals:
    """Writes the log lines. Lives on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left_out = 0
        self._all = _Allowance(ALL_A_MINUTE)
        self._same: Bounded[str, _Allowance] = Bounded(256)

    def note(self, scope: Any, status: int) -> None:
        """Log an answer that refuses a request. One whose client has gone is no refusal."""
        if status < 400 or status == CANCELLED:
            return
        line, now = _line(scope, status), self._clock()
        same = self._same.use(line)
        if same is None:
            self._same.put(line, same := _Allowance(SAME_A_MINUTE))
        if not (same.takes(now) and self._all.takes(now)):
            self._left_out += 1
            return
        more = f" left_out={self._left_out}" if self._left_out else ""
        self._left_out = 0
        log.warning("%s%s", line, more)


class _Allowance:
    """Allows `n` lines at once, and one more with each n-th part of a minute."""

    def __init__(self, n: int) -> None:
        self._most, self._left, self._at = n, float(n), 0.0

    def takes(self, now: float) -> bool:
        """Take one line, if one is left. Whether there was."""
        grown = (now - self._at) * self._most / MINUTE_S
        self._left, self._at = min(float(self._most), self._left + max(0.0, grown)), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _line(scope: Any, status: int) -> str:
    param, code = scope.get(_FAULT, (None, None))
    facts = {
        "refused": str(status),
        "method": scope["method"],
        "path": scope["path"],
        "param": param,
        "code": code,
        "client": client_of(_header(scope["headers"], b"user-agent")),
    }
    return " ".join(f"{k}={_plain(v)}" for k, v in facts.items())


def _plain(value: str | None) -> str:
    """A value on one line, in plain letters, cut; `-` for none."""
    return _ODD.sub("?", value[:_MOST_CHARS]) if value else "-"


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((v.decode("latin-1") for k, v in headers if k == name), "")
