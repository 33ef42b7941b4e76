"""The jobs of one engine, on the server's side: who waits, who runs, and that each is told its end.

A job is told `Ended` or `Failed` exactly once, and nothing behind it. Jobs are sent in their order;
one whose prompt is suspected of ending the engine is sent alone (`strikes.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from everwarm.errors import EngineError, EverwarmError
from everwarm.job import Ended, Failed, Job, Output, Sink
from everwarm.link.encoding import BadPacket
from everwarm.link.link import Link
from everwarm.link.packets import CancelJob
from everwarm.supervisor.strikes import Strikes

SOLITUDE_S: Final = 10.0
"""A suspect, and all behind it, wait so long for the others to end; then it runs beside them."""
log = logging.getLogger("everwarm.supervisor")


@dataclass(slots=True)
class SentJob:
    """A job with whom to tell about it. `since`: when it could first be sent; then, when it was."""

    job: Job
    sink: Sink
    since: float = 0.0


class Dispatch:
    """Live: any thread. Sinks are called without a lock. `good_turns`: how many were answered,
    also those that were cancelled behind a token, as all are that end at a stop text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, SentJob] = {}
        self._running: dict[str, SentJob] = {}
        self._link: Link | None = None
        self._refusal: EverwarmError | None = None
        self._strikes = Strikes()
        self._alone_until = 0.0
        self.good_turns = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)

    @property
    def is_busy(self) -> bool:
        """Whether a job is with the engine."""
        return bool(self._running)

    def submit(self, job: Job, sink: Sink) -> None:
        """Send a job, or let it wait for an engine. One that is refused is told so."""
        with self._lock:
            refusal = self._refusal or self._strikes.refusal(job.tokens, time.monotonic())
            if refusal is None:
                self._waiting[job.id] = SentJob(job, sink)
        if refusal is not None:
            tell(sink, Failed(refusal))
        else:
            self.send_waiting()

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
        self.send_waiting()

    def take(self, job_id: str, output: Output) -> None:
        """Pass an output on. One thread at a time."""
        if isinstance(output, (Ended, Failed)):
            self._take_last(job_id, output)
            return
        sent = self._running.get(job_id)
        if sent is None or _told(sent.sink, output):
            return
        with self._lock:
            is_ours = self._running.pop(job_id, None) is not None
            if is_ours and self._link is not None:
                self._link.post(CancelJob(), job_id)
        if is_ours:
            tell(sent.sink, Failed(EngineError("A part of this turn could not be told.")))

    def lost(self, why: EverwarmError, *, by_fault: bool) -> None:
        """The engine is gone: what ran has failed, what waited goes on waiting. `by_fault`: of its
        own, so that what ran is suspected."""
        now = time.monotonic()
        with self._lock:
            self._link, self._alone_until = None, 0.0
            running, self._running = self._running, {}
            if by_fault:
                ran = {k: (sent.job.tokens, now - sent.since) for k, sent in running.items()}
                self._strikes.died(ran, now)
        for sent in running.values():
            tell(sent.sink, Failed(why))

    def close(self, why: EverwarmError) -> None:
        """There will be no engine any more."""
        with self._lock:
            self._refusal = why
            waiting, self._waiting = list(self._waiting.values()), {}
        for sent in waiting:
            tell(sent.sink, Failed(why))
        self.lost(why, by_fault=False)

    def send_waiting(self) -> None:
        """Send what waits, in order, as far as it may be sent now."""
        ended: list[tuple[SentJob, EverwarmError]] = []
        with self._lock:
            while (sent := self._next()) is not None:
                if (error := self._send(sent)) is not None:
                    ended.append((sent, error))
        for sent, error in ended:
            tell(sent.sink, Failed(error))

    def _next(self) -> SentJob | None:
        """Take the next job out that waits; None: there is none, or it has to wait on."""
        now = time.monotonic()
        if self._link is None or not self._waiting or (self._running and now < self._alone_until):
            return None
        job_id, sent = next(iter(self._waiting.items()))
        alone_s = self._strikes.alone_s(sent.job.tokens, now)
        sent.since = sent.since or now
        if alone_s and self._running:
            if now < sent.since + SOLITUDE_S:
                return None
            alone_s = 0.0
        self._alone_until = now + alone_s if alone_s else 0.0
        del self._waiting[job_id]
        return sent

    def _send(self, sent: SentJob) -> EverwarmError | None:
        """Send a job; gives why not, where it cannot be sent."""
        assert self._link is not None
        sent.since = time.monotonic()
        if (refusal := self._strikes.refusal(sent.job.tokens, sent.since)) is not None:
            return refusal
        self._running[sent.job.id] = sent  # `take` may hear of it before `post` returns
        try:
            self._link.post(sent.job, sent.job.id)
        except BadPacket as e:
            del self._running[sent.job.id]
            log.error("job=%s not_sent=%s", sent.job.id, e)
            return EngineError("This turn could not be sent to the engine.")
        return None

    def _take_last(self, job_id: str, output: Ended | Failed) -> None:
        with self._lock:
            sent = self._running.pop(job_id, None)
            if sent is None:
                return
            if isinstance(output, Ended):
                is_whole = output.reason != "cancelled"
                self.good_turns += is_whole or output.completion_tokens > 0
                if is_whole:
                    self._strikes.answered(sent.job.tokens)
        tell(sent.sink, output)
        if self._waiting:
            self.send_waiting()


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
