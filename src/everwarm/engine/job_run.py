"""Run one job: lease, prefill, decode, commit. A synchronous generator of steps.

`steps` yields after each prefill chunk and each token; its caller decides who is next, and may take
a step of several lanes at once (`lane.decode`) before it goes on with each of them. An error of
the model leaves its layers uneven, and the state goes back to where the lease began; after any
other, such as a grammar's or a sampler's, what was read is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal

import mlx.core as mx

from everwarm.cache.admission import NoRoom
from everwarm.cache.cache import Cache, Lease
from everwarm.cache.sequence import Sequence
from everwarm.codec import Codec
from everwarm.engine.compiled_grammar import Grammars
from everwarm.engine.guide import Guide
from everwarm.engine.lane import SPILL_EVERY, JobCounts, Lane, decode, int_of
from everwarm.job import Ended, Job, Leased, Output, Prefilled, Waits
from everwarm.tokens import tokens_of

Phase = Literal["wait", "prefill", "decode", "stalled"]
CLEAR_EVERY = 256
TELL_WAIT_EVERY_S = 5.0
TELLING_PREFILL = 256
LIKELY_REPLY = 4096
"""Room set aside for a reply, and again whenever it is used up: hardly any gets that long."""


class JobRun:
    """One job on its way. Live: engine thread only. `chunk` may be changed between steps, and
    `has_company`: whether others run beside it. `lane`: its reply, once one is being written.

    `grammars` is needed by jobs that have one. `likely_reply`: tokens of room asked for at a time.
    A reply that needs more than there is beside the others is `stalled`; where they are stalled
    too, one is parked: its state is filed, and the reply goes on from there when there is room.
    """

    def __init__(
        self,
        job: Job,
        cache: Cache,
        codec: Codec,
        sink: Callable[[Output], None],
        chunk: int = 512,
        grammars: Grammars | None = None,
        likely_reply: int = LIKELY_REPLY,
    ) -> None:
        self.job, self.cache, self.codec, self.sink = job, cache, codec, sink
        self.grammars = grammars
        self.chunk = chunk
        self._tokens = job.tokens
        self._likely_reply = likely_reply
        self.phase: Phase = "wait"
        self.cancelled = False
        self.waits_for_room = False
        self._tell_wait_at = 0.0
        self.lease: Lease | None = None
        self.lane: Lane | None = None
        self.has_company = False
        self.submitted = self.leasing = time.perf_counter()
        self.counts = JobCounts()

    def try_lease(self) -> bool:
        """Take the job up; False: what it needs is being read, by somebody else or from disk, or
        there is no room for it (`waits_for_room`)."""
        job = self.job
        if self.lease is None:
            self.leasing = time.perf_counter()
            rows = self._rows(len(self._tokens))
            found = self.cache.lease(self._tokens, job.marks, job.namespace, rows=rows)
            self.waits_for_room = isinstance(found, NoRoom)
            if isinstance(found, NoRoom):
                self.tell_wait(f"waits for memory: {found}")
            self.lease = found if isinstance(found, Lease) else None
        if self.lease is None:
            return False
        lease = self.lease
        state = self.cache.resume(lease)
        if state == "lost":
            self.lease = None
        if state != "whole":
            return False
        if self.phase == "stalled":
            return True
        self.phase = "prefill"
        wait_s, restore_s = self.leasing - self.submitted, time.perf_counter() - self.leasing
        self.sink(Leased(lease.start, lease.unseen, lease.cached_from, wait_s, restore_s))
        return True

    def tell_wait(self, why: str) -> None:
        """Say what the job waits for, now and then: the engine asks between any two steps."""
        now = time.perf_counter()
        if now >= self._tell_wait_at:
            self._tell_wait_at = now + TELL_WAIT_EVERY_S
            self.sink(Waits(why))

    @property
    def sequence(self) -> Sequence:
        """What is read. Held nowhere else: a reply that is parked must not keep it alive."""
        assert self.lease is not None
        return self.lease.sequence

    def steps(self) -> Iterator[None]:
        """Prefill and decode. Closing the generator cancels; what was read is kept."""
        try:
            yield from self._prefill()
            if self.job.max_tokens == 0:
                self.counts.reason = "length"
                return
            self.phase = "decode"
            yield from self._decode()
        except GeneratorExit:
            self.counts.reason = "cancelled"
            if self.lane is not None and self.phase == "decode":
                self.lane.read_told()
            raise
        # A model raises anything. What was read before is kept, and the caller hears of it.
        except Exception:
            if self.lease is not None:
                self._look_behind(self.lease.sequence)
            self.give_back()
            raise

    @property
    def is_parked(self) -> bool:
        """It has begun, and has to be taken up again by `try_lease`."""
        return self.phase == "stalled" and (self.lease is None or self.lease.restoring is not None)

    def can_go_on(self) -> bool:
        """Whether a stalled reply has room for its next token, or any other may take its step."""
        if self.phase != "stalled":
            return True
        lease = self.lease
        if lease is None or lease.restoring is not None:
            return False
        length = lease.sequence.length
        return length < lease.holder.rows or self.cache.extend(lease, self._rows(length))

    @property
    def n_left(self) -> int:
        """Tokens of the prompt that are not read yet."""
        return len(self._tokens) - (self.lease.sequence.length if self.lease else 0)

    def park(self) -> None:
        """Give a stalled reply's state back, so that others can end and make room."""
        self.give_back()

    def _rows(self, length: int) -> int:
        """How long the sequence may get before it asks for room again."""
        end = len(self.job.tokens) + self.job.max_tokens
        return min(length + self._likely_reply, max(end, length))

    def _stall(self, y: mx.array) -> Iterator[None]:
        """Wait for room. A state that was parked comes back without what was let go meanwhile."""
        self._tokens = self.sequence.tokens + tokens_of([int_of(y)])
        self.phase = "stalled"
        yield
        while not self.can_go_on():
            yield
        if self.sequence.length < len(self._tokens) - 1:
            yield from self._prefill()
        self.phase = "decode"

    def finish(self) -> None:
        """File the state and say that the job is over."""
        began = time.perf_counter()
        self.give_back()
        self.sink(self.ended(time.perf_counter() - began))

    def give_back(self) -> None:
        """File what was read. What has no end goes back to where the lease began.

        Where the cache raises it has dropped the state.
        """
        lease, self.lease = self.lease, None
        if lease is None:
            return
        if lease.restoring is None and lease.sequence.end is not None:
            self.cache.commit(lease)
        else:
            self.cache.abandon(lease)

    def _look_behind(self, sequence: Sequence) -> None:
        """After an error: know every token that was read, and whether the model has failed too."""
        if sequence.is_ahead and self.lane is not None:
            sequence.look(int_of(self.lane.unread))
        if sequence.end is not None:
            sequence.settle()

    def ended(self, commit_s: float) -> Ended:
        """What the job came to."""
        c = self.counts
        if c.prefilled >= TELLING_PREFILL:
            self.cache.prefill_tps = c.prefilled / c.prefill_s
        return Ended(
            c.reason, c.prefilled, c.completion, c.prefill_s, c.decode_s, commit_s, c.thinking_cut
        )

    def _prefill(self) -> Iterator[None]:
        """Read all but the last prompt token, cut on an absolute grid and at checkpoints.

        What is no more than a chunk is read at once: a call has its own price.
        """
        tokens, end = self._tokens, len(self._tokens) - 1
        lease, sequence = self.lease, self.sequence
        assert lease is not None
        stops = self.cache.stops(lease, end)
        first = True
        while sequence.length < end:
            began = time.perf_counter()
            at = sequence.length
            stop = next((c for c in stops if c > at), end)
            grid = (at // self.chunk + 1) * self.chunk
            to = min(stop, end if end - at <= self.chunk else grid)
            sequence.prefill(tokens[at:to])
            if self.phase == "prefill":
                self.counts.prefilled += to - at
            if first and end - to > self.chunk:
                sequence.reserve_to(len(tokens) + 512)
            first = False
            if to in stops:
                self.cache.checkpoint(lease, stops[to])
            if to // SPILL_EVERY > at // SPILL_EVERY:
                self.cache.spill(lease.holder)
            if to - at >= self.chunk:  # a hit's few tokens leave nothing worth giving back
                mx.clear_cache()
            self.counts.prefill_s += time.perf_counter() - began
            if self.phase == "prefill":
                self.sink(Prefilled(to, len(tokens)))
            yield

    def _decode(self) -> Iterator[None]:
        """Yields behind each step, and where others decode, also before the first one."""
        guide = Guide(self.job, self.codec, self.grammars)
        self.lane = Lane(
            self.job, self.codec, guide, self.counts, self._present, self._spill, self.sink
        )
        if self.has_company:
            yield
        while True:
            if not self.lane.has_stepped:
                decode([self.lane])
            self.lane.end_step()
            if self.lane.is_over:
                break
            if self.counts.completion % CLEAR_EVERY == 0:
                mx.clear_cache()
            if self.sequence.length >= self._present().holder.rows:
                yield from self._stall(self.lane.unread)
            else:
                yield

    def _present(self) -> Lease:
        assert self.lease is not None
        return self.lease

    def _spill(self, lease: Lease) -> None:
        self.cache.spill(lease.holder)
