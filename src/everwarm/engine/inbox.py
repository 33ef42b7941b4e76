"""What other threads ask of the engine's thread, in order.

Whatever is put in is answered once: it is run, or it is refused once the engine has ended. Nobody
waits for an engine that is gone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from everwarm.errors import EngineError

Work = Callable[[], None]
Refuse = Callable[[EngineError], None]


@dataclass(frozen=True, slots=True)
class EngineCall:
    """Something to run between two steps, or else to refuse. Neither raises."""

    work: Work
    refuse: Refuse


class Inbox:
    """`put` from any thread; `take` on the engine's."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[EngineCall] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._refusal: EngineError | None = None

    def put(self, work: Work, refuse: Refuse) -> None:
        """Have it run on the engine's thread, or refused: there, or at once on this one."""
        with self._lock:
            refusal = self._refusal
            if refusal is None:
                self._queue.put(EngineCall(work, refuse))
        if refusal is not None:
            refuse(refusal)

    def wake(self) -> None:
        """Let the engine look around."""
        self.put(_nothing, _unheard)

    def call(
        self, fn: Callable[[], Any], run: Callable[[Future[Any], Callable[[], Any]], None]
    ) -> Future[Any]:
        """The future of what `fn` gives on the engine's thread, where `run` settles it."""
        future: Future[Any] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                run(future, fn)

        def refuse(error: EngineError) -> None:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

        self.put(work, refuse)
        return future

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()

    def take(self, timeout_s: float | None = None) -> Work | None:
        """The next thing to run. None: there was none within this time."""
        try:
            return self._queue.get(timeout=timeout_s).work
        except queue.Empty:
            return None

    def close(self, why: EngineError) -> None:
        """Refuse what was not taken, and whatever comes from now on."""
        with self._lock:
            self._refusal = why
        while not self._queue.empty():
            self._queue.get().refuse(why)


def _nothing() -> None:
    """Wakes the thread."""


def _unheard(_: EngineError) -> None:
    """Nobody waits."""
