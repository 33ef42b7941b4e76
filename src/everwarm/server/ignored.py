"""Fields without effect: listed in a header, logged once, or refused by a strict server.

`wire/fields.py` decides which fields these are, and `prompt/render.py` where the template has no
place for something. The turn's record lists them too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

from everwarm.errors import RequestError

HEADER: Final = "x-everwarm-ignored"
MAX_HEADER_NBYTES: Final = 2048
MAX_KINDS: Final = 1000
"""How many different paths are logged; a client that sends more of them sends noise."""
log = logging.getLogger("everwarm.wire")


def header_of(ignored: Sequence[str]) -> dict[str, str]:
    """The header that lists these paths, as many of them as fit into `MAX_HEADER_NBYTES`."""
    shown, nbytes = list[str](), 0
    for path in ignored:
        nbytes += len(path) + 2
        if nbytes > MAX_HEADER_NBYTES:
            shown.append("...")
            break
        shown.append(path)
    return {HEADER: ", ".join(shown)} if shown else {}


class IgnoredFields:
    """Logs each path once in the life of the process. Live: event loop only."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._logged: set[str] = set()

    def check(self, ignored: Iterable[str]) -> None:
        """Log the paths that were not logged yet. Raises RequestError if the server is strict."""
        for path in ignored:
            if self._strict:
                raise RequestError(
                    f"{path} would have no effect, and this server refuses such fields (--strict). "
                    "Leave it out.",
                    param=path,
                )
            if path not in self._logged and len(self._logged) < MAX_KINDS:
                self._logged.add(path)
                log.info("ignored=%s (accepted; the answer is the same without it)", path)
