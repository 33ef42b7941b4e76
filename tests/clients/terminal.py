"""A program in a terminal of its own, typed at and read as a person would; wants tmux."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Terminal:
    """One program's screen and keys. Owned by the main thread; made by `terminal`."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def screen(self) -> str:
        """What is shown, and what has scrolled away."""
        return self._tmux("capture-pane", "-p", "-S", "-")

    def type(self, text: str) -> None:
        """Type a text and send it; the pause keeps its end from being taken for a paste."""
        self._tmux("send-keys", "-l", text)
        time.sleep(1)
        self.press("Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def wait(self, holds: Callable[[str], bool], what: str, timeout_s: float = 900) -> None:
        """Wait until something holds for the screen; raises AssertionError where it does not."""
        deadline = time.monotonic() + timeout_s
        while not holds(self.screen()):
            assert time.monotonic() < deadline, f"not {what}:\n{self.screen()}"
            time.sleep(0.5)

    def ended(self) -> bool:
        return self._tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def _tmux(self, *command: str) -> str:
        return _tmux(self._socket, *command)


@contextmanager
def terminal(command: list[str], cwd: Path, env: Mapping[str, str]) -> Iterator[Terminal]:
    """Start a program in a new terminal, which ends with the block. It sees this `env` only."""
    socket = f"everwarm-{os.getpid()}-{time.monotonic_ns()}"
    words = [f"{name}={value}" for name, value in (env | {"TERM": "screen-256color"}).items()]
    size = ["-d", "-x", "160", "-y", "60", "-c", str(cwd)]
    _tmux(socket, "-f", "/dev/null", "new-session", *size, "env", "-i", *words, *command)
    try:
        _tmux(socket, "set-option", "-g", "remain-on-exit", "on")
        yield Terminal(socket)
    finally:
        _tmux(socket, "kill-server")


def _tmux(socket: str, *command: str) -> str:
    done = subprocess.run(
        ["tmux", "-L", socket, *command], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout
