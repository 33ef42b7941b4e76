"""File descriptors: how many the process may have, and how many of them for connections."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import time
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger("everwarm.server")
WANTED: Final = 8192
BACKLOG: Final = 64
"""Connections accepted in one round of the event loop. Each takes a descriptor before any of them
is handled."""
QUEUE: Final = 1024
"""Connections that the system holds until they are accepted."""
_OTHERS: Final = 128 + 2 * BACKLOG
"""Descriptors for other things: files of cache and history, libraries, pipes, one round."""
_MOST: Final = 1024
_SAID_EVERY_S: Final = 60.0
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_limit() -> int:
    """Raise the soft limit as far as the hard one allows. Returns how many are allowed now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return WANTED if soft == resource.RLIM_INFINITY else soft


def n_connections(allowed: int) -> int:
    """How many of the allowed descriptors may be connections, with room for all other files."""
    return max(16, min(_MOST, allowed - _OTHERS))


class LoopErrors:
    """The event loop's exception handler. It logs once a minute that no descriptor is left: the
    loop reports it for every connection that it cannot accept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NONE_LEFT:
            return loop.default_exception_handler(context)
        if self._clock() - self._said_at >= _SAID_EVERY_S:
            self._said_at = self._clock()
            log.warning("No connection can be taken for now: %s.", error.strerror)
