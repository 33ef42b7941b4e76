"""What an engine process writes on stderr: passed on, and the last lines remembered."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import Final

LINES: Final = 40
FRAMES: Final = 8
"""Of the stacks of all threads that Python writes at a fault: only the first of the faulty one are
remembered. What was said before them tells more, such as Metal's reason for an abort."""
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
        frames_left: int | None = None  # None: there was no fault
        with os.fdopen(self._fd, "rb", buffering=1 << 16) as pipe:
            while line := pipe.readline(_LONGEST):
                text = line.decode(errors="replace")
                if text.startswith("Current thread ") and frames_left is not None:
                    frames_left = FRAMES
                if text.strip() and frames_left != 0:
                    self._lines.append(text.rstrip("\n"))
                    frames_left = None if frames_left is None else frames_left - 1
                if text.startswith("Fatal Python error: "):
                    frames_left = 0
                _pass_on(text)


def _pass_on(text: str) -> None:
    """Write it on our own stderr, which may be closed, or a pipe that nobody reads any more."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return
