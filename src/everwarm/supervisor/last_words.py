"""What an engine process writes on stderr: passed on, and the last lines remembered."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import Final

LINES: Final = 40
_LONGEST: Final = 4096


class LastWords:
    """Reads a pipe until its writers are gone, on a thread of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: deque[str] = deque(maxlen=LINES)
        self._thread = threading.Thread(target=self._read, name="everwarm-words", daemon=True)
        self._thread.start()

    def text(self, timeout_s: float = 0.0) -> str:
        """The last lines, once all is read or this time is over."""
        self._thread.join(timeout_s)
        return "\n".join(self._lines.copy())

    def _read(self) -> None:
        with os.fdopen(self._fd, "rb", buffering=1 << 16) as pipe:
            while line := pipe.readline(_LONGEST):
                text = line.decode(errors="replace")
                if text.strip():
                    self._lines.append(text.rstrip("\n"))
                _pass_on(text)


def _pass_on(text: str) -> None:
    """Write it on our own stderr, which may be closed, or a pipe that nobody reads any more."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return
