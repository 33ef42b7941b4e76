"""The jobs of one engine: who begins, who is next, and what becomes of one that fails.

Everything that is done for a job is done in `_attempt`. What it raises is logged once, the cache is
put right, and all other jobs go on. A step that fails ends its job with `Failed`; a reply that is
complete but cannot be filed is told as it stands: a fault of the cache costs no answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from everwarm.cache.cache import Cache, Lease
from everwarm.config import Settings
from everwarm.engine.admission_order import AdmissionOrder, Begin
from everwarm.engine.chunk import ChunkSize
from everwarm.engine.job_run import JobRun
from everwarm.engine.lane import Lane, decode
from everwarm.engine.lane_limit import LaneLimit
from everwarm.engine.pressure_relief import PressureRelief
from everwarm.engine.schedule import Schedule
from everwarm.errors import EngineError, EverwarmError, RequestError
from everwarm.job import Failed, Job, Output, Sink

log = logging.getLogger("everwarm.engine")
_END: Final = object()


class _StartedRun:
    """A run with its generator, once it has begun."""

    def __init__(self, run: JobRun) -> None:
        self.run = run
        self.steps: Iterator[None] | None = None
        self.is_over = False

    @property
    def waits(self) -> bool:
        """It has to be taken up, for the first time or again."""
        return self.steps is None or self.run.is_parked

    @property
    def lane(self) -> Lane | None:
        """Its reply, where the next step is one of decoding."""
        return self.run.lane if self.run.phase == "decode" else None


class Jobs:
    """In order of arrival. Live: engine thread only; anybody may ask how many there are."""

    def __init__(
        self, cache: Cache, chunk: ChunkSize, relief: PressureRelief, settings: Settings
    ) -> None:
        self._cache, self._chunk, self._relief = cache, chunk, relief
        self._schedule = Schedule(settings.prefill_share)
        self._limit = LaneLimit(settings.least_tokens_per_s)
        self._line = AdmissionOrder()
        self._jobs: dict[str, _StartedRun] = {}
        self.idle_since = time.monotonic()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    @property
    def is_replying(self) -> bool:
        """Whether a reply is being written, which every step between two tokens delays."""
        return any(r.run.phase == "decode" for r in self._jobs.values())

    def add(self, run: JobRun) -> None:
        """Let a job wait for its turn."""
        self._jobs[run.job.id] = _StartedRun(run)

    def cancel(self, job_id: str) -> None:
        """Let a job end at its next step."""
        if (r := self._jobs.get(job_id)) is not None:
            r.run.cancelled = True
            if r.run.lease is not None:
                r.run.lease.holder.ending = True

    def step(self) -> bool:
        """Let those begin who can, then one step of the lanes or of a prefill. False: nobody can
        take one."""
        self._line.offer([k for k, r in self._jobs.items() if r.waits], self._begin)
        for r in [r for r in self._jobs.values() if r.run.cancelled and not r.waits]:
            self._end(r)
        begun = [r for r in self._jobs.values() if not r.waits]
        ready = [r for r in begun if self._can_go_on(r)]
        begun = [r for r in begun if r.run.job.id in self._jobs]
        lanes = [r for r in ready if r.lane is not None]
        left = {r.run.job.id: r.run.n_left for r in ready if r.lane is None}
        short = self._chunk.size(is_shared=False)
        job_id = self._schedule.next(left, decoding=bool(lanes), short=short)
        if job_id is not None:
            self._prefill(self._jobs[job_id], left, is_shared=len(begun) > 1)
        elif lanes:
            self._decode(lanes)
        elif begun:
            self._park(begun[-1])
        return bool(ready) or self.is_idle

    def _can_go_on(self, r: _StartedRun) -> bool:
        """Whether a run can take a step; one that fails at asking for room is told so."""
        found: list[bool] = []
        error = self._attempt(r, lambda: found.append(r.run.can_go_on()))
        if error is not None:
            self._fail(r, error)
        return error is None and found[0]

    def _park(self, r: _StartedRun) -> None:
        """All that run need more room than there is: the latest gives its state back."""
        if (error := self._attempt(r, r.run.park)) is not None:
            self._fail(r, error)

    def end_all(self) -> None:
        """Cancel every job, and file what it has read."""
        for job_id, r in list(self._jobs.items()):
            self.cancel(job_id)
            self._end(r)

    def fail_all(self, why: EngineError) -> None:
        """Tell every job that there is no engine any more. Touches nothing else."""
        left, self._jobs = list(self._jobs.values()), {}
        for r in left:
            tell(r.run.sink, Failed(why))

    def put_right(self, failed: JobRun | None = None) -> str:
        """Give back what a failed job holds, and drop what was left half-way.

        If that fails too, nothing in memory can be trusted but the states that others go on with.
        Gives what to say of it in the log.
        """
        try:
            if failed is not None:
                failed.give_back()
            self._cache.mend(self._leases(failed))
        # What ended the job may be a fault of the device: then this meets it again.
        except Exception as e:
            self._cache.reset(self._leases(failed))
            return f", and the cache in memory was dropped ({type(e).__name__})"
        finally:
            if failed is not None:
                failed.lease = None
        return ""

    def _leases(self, but: JobRun | None) -> list[Lease]:
        runs = [r.run for r in self._jobs.values() if r.run is not but]
        return [run.lease for run in runs if run.lease is not None]

    def _begin(self, job_id: str) -> Begin:
        """Take a job up if that can be."""
        r = self._jobs[job_id]
        if r.run.cancelled:
            self._end(r)
            return "gone"
        had_room = r.run.lease is not None
        if (error := self._attempt(r, lambda: self._take_up(r))) is not None:
            self._fail(r, error)
            return "gone"
        if r.run.lease is None:
            return "no room" if r.run.waits_for_room else "waits"
        self._line.remove(job_id)
        return "waits" if had_room else "begun"

    def _take_up(self, r: _StartedRun) -> None:
        if r.run.lease is None and not self._may_begin(r):
            return
        if r.run.try_lease():
            r.steps = r.steps or r.run.steps()

    def _may_begin(self, r: _StartedRun) -> bool:
        n_begun = sum(not other.waits for other in self._jobs.values())
        if why_not := self._limit.why_not(n_begun + 1):
            r.run.tell_wait(why_not)
            return False
        return self._relief.may_begin(self._waiting(r))

    def _waiting(self, first: _StartedRun) -> list[Job]:
        """What has not begun, this job first."""
        others = (r for r in self._jobs.values() if r.waits and r is not first)
        return [r.run.job for r in (first, *others)]

    def _prefill(self, r: _StartedRun, left: Mapping[str, int], *, is_shared: bool) -> None:
        began, before = time.perf_counter(), r.run.counts.prefilled
        r.run.chunk, r.run.has_company = self._chunk.size(is_shared=is_shared), is_shared
        self._go_on(r)
        took_s, n = time.perf_counter() - began, r.run.counts.prefilled - before
        self._schedule.prefilled(r.run.job.id, n, took_s, left)
        if r.run.phase == "prefill" and n:
            self._chunk.learn(n, took_s)

    def _decode(self, runs: list[_StartedRun]) -> None:
        """One step of all lanes; then each of them is told what became of its part."""
        began = time.perf_counter()
        decode([r.lane for r in runs if r.lane is not None])
        for r in runs:
            self._go_on(r)
        took_s = time.perf_counter() - began
        self._schedule.decoded(took_s)
        self._limit.learn(len(runs), took_s)

    def _go_on(self, r: _StartedRun) -> None:
        """Let a run go on until its next step. One that is over ends, one that fails is told."""
        if (error := self._attempt(r, lambda: self._next(r))) is not None:
            self._fail(r, error)
        elif r.is_over:
            self._end(r)

    def _next(self, r: _StartedRun) -> None:
        assert r.steps is not None
        r.is_over = next(r.steps, _END) is _END

    def _end(self, r: _StartedRun) -> None:
        """File what a job has read, and say that it is over."""
        began = time.perf_counter()
        self._attempt(r, lambda: self._file(r))
        self._tell_last(r, r.run.ended(time.perf_counter() - began))

    def _file(self, r: _StartedRun) -> None:
        if r.steps is not None:
            r.steps.close()  # type: ignore[attr-defined]
        r.run.give_back()

    def _fail(self, r: _StartedRun, error: Exception) -> None:
        self._tell_last(r, Failed(said(error)))

    def _tell_last(self, r: _StartedRun, output: Output) -> None:
        """Tell a job that it is over; only then is it forgotten, so that none is left untold."""
        tell(r.run.sink, output)
        self._jobs.pop(r.run.job.id, None)
        self._line.remove(r.run.job.id)
        self.idle_since = time.monotonic()

    def _attempt(self, r: _StartedRun, action: Callable[[], None]) -> Exception | None:
        """Do something for a job. What it raises is logged, with the cache put right behind it."""
        try:
            action()
        except RequestError as e:  # no fault of ours: the client hears why
            log.info("job=%s refused%s", r.run.job.id, self.put_right(r.run))
            return e
        # A model, a sampler, a tokenizer, a client's sink, an array: any of them raises anything.
        except Exception as e:
            log.error("job=%s failed%s", r.run.job.id, self.put_right(r.run), exc_info=e)
            return e
        return None


def tell(sink: Sink, output: Output) -> None:
    """Give a job its last output; that it cannot be told, if it can take that."""
    for out in (output, Failed(EngineError("How this turn ended could not be told."))):
        try:
            sink(out)
            return
        # The client's side raises anything. It is no concern of the engine or of other jobs.
        except Exception as e:
            log.error("sink=failed error=%s", type(e).__name__, exc_info=_new(output, out, e))


def _new(output: Output, out: Output, e: Exception) -> Exception | None:
    """A failure that is not in the log yet, where one of this sink's may have been the reason."""
    return None if isinstance(output, Failed) or out is not output else e


def said(e: Exception) -> EverwarmError:
    """What a client hears of an error. Ours are made for people; of others only the kind."""
    if isinstance(e, EverwarmError):
        return e
    return EngineError(f"The engine failed: {type(e).__name__}.")
