"""The jobs of one engine, on the server's side: who waits, who runs, and that each is told its end.

A job is told `Ended` or `Failed` exactly once, and nothing behind it.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from everwarm.errors import EngineError, EverwarmError
from everwarm.job import Ended, Failed, Job, Output, Sink
from everwarm.link.encoding import BadPacket
from everwarm.link.link import Link
from everwarm.link.packets import CancelJob

log = logging.getLogger("everwarm.supervisor")


@dataclass(frozen=True, slots=True)
class Sent:
    """A job with whom to tell about it."""

    job: Job
    sink: Sink


class Dispatch:
    """Live: any thread. Sinks are called without a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, Sent] = {}
        self._running: dict[str, Sent] = {}
        self._link: Link | None = None
        self._refusal: EverwarmError | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def is_busy(self) -> bool:
        """Whether a job is with the engine."""
        return bool(self._running)

    def submit(self, job: Job, sink: Sink) -> None:
        """Send a job, or let it wait for an engine."""
        with self._lock:
            refusal = self._refusal
            if refusal is None:
                self._waiting[job.id] = Sent(job, sink)
        if refusal is not None:
            tell(sink, Failed(refusal))
        else:
            self._send_waiting()

    def cancel(self, job_id: str) -> None:
        with self._lock:
            waiting = self._waiting.pop(job_id, None)
            if waiting is None and job_id in self._running and self._link is not None:
                self._link.post(CancelJob(), job_id)
        if waiting is not None:
            tell(waiting.sink, Ended("cancelled", 0, 0, 0.0, 0.0, 0.0))

    def opened(self, link: Link) -> None:
        """An engine takes jobs: it gets those that waited, in their order."""
        with self._lock:
            self._link = link
        self._send_waiting()

    def take(self, job_id: str, output: Output) -> None:
        """Pass an output on. One thread at a time."""
        is_last = isinstance(output, (Ended, Failed))
        with self._lock:
            sent = self._running.pop(job_id, None) if is_last else self._running.get(job_id)
        if sent is None:
            return
        if is_last:
            tell(sent.sink, output)
        elif not _told(sent.sink, output):
            with self._lock:
                self._running.pop(job_id, None)
                if self._link is not None:
                    self._link.post(CancelJob(), job_id)
            tell(sent.sink, Failed(EngineError("A part of this turn could not be told.")))

    def lost(self, why: EverwarmError) -> None:
        """The engine is gone: what ran has failed, what waited goes on waiting."""
        with self._lock:
            self._link = None
            running, self._running = list(self._running.values()), {}
        for sent in running:
            tell(sent.sink, Failed(why))

    def close(self, why: EverwarmError) -> None:
        """There will be no engine any more."""
        with self._lock:
            self._refusal = why
            waiting, self._waiting = list(self._waiting.values()), {}
        for sent in waiting:
            tell(sent.sink, Failed(why))
        self.lost(why)

    def _send_waiting(self) -> None:
        """Send what waits, in order, where there is an engine."""
        bad: list[tuple[Sent, BadPacket]] = []
        with self._lock:
            while self._link is not None and self._waiting:
                job_id = next(iter(self._waiting))
                sent = self._waiting.pop(job_id)
                try:
                    self._link.post(sent.job, job_id)
                    self._running[job_id] = sent
                except BadPacket as e:
                    bad.append((sent, e))
        for sent, error in bad:
            log.error("job=%s not_sent=%s", sent.job.id, error)
            tell(sent.sink, Failed(EngineError("This turn could not be sent to the engine.")))


def tell(sink: Sink, output: Output) -> None:
    """Give a job its last output; what the sink makes of it is its own matter."""
    _told(sink, output)


def _told(sink: Sink, output: Output) -> bool:
    try:
        sink(output)
    # The client's side raises anything. It is no concern of other jobs.
    except Exception as e:
        log.error("sink=failed error=%s", type(e).__name__, exc_info=e)
        return False
    return True
