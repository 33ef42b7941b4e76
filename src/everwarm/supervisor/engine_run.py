"""One life of an engine process: its start, the link to it, and how it ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from typing import Final

from everwarm.config import Settings
from everwarm.link.link import Link, Receive
from everwarm.link.packets import LoadModel
from everwarm.supervisor.death import Death
from everwarm.supervisor.last_words import LastWords

MODULE: Final = "everwarm.engine.process"
_REAP_S: Final = 1.0
"""A process whose end of the link is closed gets so long to be gone."""
_WORDS_S: Final = 0.3


class EngineRun:
    """Live: made and reaped by the supervisor's thread; `link` and `kill` for all threads.

    `module` is run by the interpreter that runs us. Raises OSError where there is no process to be
    had.
    """

    def __init__(
        self, model_path: str, settings: Settings, receive: Receive, module: str = MODULE
    ) -> None:
        self.began = time.monotonic()
        self.has_ended = threading.Event()
        self._hang: str | None = None
        self._link_why: str | None = None
        ours, theirs = socket.socketpair()
        words, pipe = os.pipe()
        try:
            self.process = subprocess.Popen(
                # -P: nothing of the directory that we happen to be in is imported
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # what a terminal sends to a whole group is ours to handle
            )
        except OSError:
            ours.close()
            os.close(words)
            raise
        finally:
            theirs.close()
            os.close(pipe)
        self._words = LastWords(words)
        self.link = Link(ours, "everwarm-link")
        self.link.start(receive, self._end)
        self.link.post(LoadModel(model_path, settings))

    @property
    def is_alive(self) -> bool:
        """Whether it can still be talked to."""
        return not self.has_ended.is_set() and self.process.poll() is None

    def kill(self, hang: str | None = None) -> None:
        """End it at once. `hang`: why, where it does not answer."""
        self._hang = hang
        self.process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Whether the process was gone within this time."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def reap(self) -> Death:
        """Wait for the end of what is about to end, and give back all that it held."""
        link: str | None = None
        if not self.wait(_REAP_S):
            link = self._link_why or "it closed its link"
            self.process.kill()
            self.process.wait()
        self.link.close()
        self.link.join()
        return Death(
            code=self.process.returncode,
            words=self._words.text(_WORDS_S),
            lived_s=time.monotonic() - self.began,
            hang=self._hang,
            link=link,
        )

    def _end(self, why: str | None) -> None:
        self._link_why = why
        self.has_ended.set()
