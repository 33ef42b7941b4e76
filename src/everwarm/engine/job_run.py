"""Run one job: lease, prefill, decode, commit. A synchronous generator of steps.

`steps` yields after each prefill chunk and each token; its caller decides who is next. An error of
the model leaves its layers uneven, and the state goes back to where the lease began; after any
other, such as a grammar's or a sampler's, what was read is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx

from everwarm.cache.cache import Cache, Lease
from everwarm.cache.sequence import Sequence
from everwarm.codec import Codec
from everwarm.engine.compiled_grammar import Grammars
from everwarm.engine.guide import Guide
from everwarm.job import Ended, Job, Leased, Output, Prefilled, Token
from everwarm.tokens import tokens_of

Phase = Literal["wait", "prefill", "decode", "stalled"]
CLEAR_EVERY = 256
SPILL_EVERY = 2048
"""Tokens. Should the engine die, these are lost at most, and as many that are being written."""
TELLING_PREFILL = 256
LIKELY_REPLY = 4096
"""Room set aside for a reply, and again whenever it is used up: hardly any gets that long."""


@dataclass(slots=True)
class JobCounts:
    """What a job has done so far."""

    prefilled: int = 0
    completion: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    reason: Literal["stop", "length", "cancelled"] = "cancelled"
    thinking_cut: bool = False


class JobRun:
    """One job on its way. Live: engine thread only. `chunk` may be changed between steps.

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
        self.lease: Lease | None = None
        self._unread: mx.array | None = None
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
            self.waits_for_room = found == "room"
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

    def park(self) -> None:
        """Give a stalled reply's state back, so that others can end and make room."""
        self.give_back()

    def _rows(self, length: int) -> int:
        """How long the sequence may get before it asks for room again."""
        end = len(self.job.tokens) + self.job.max_tokens
        return min(length + self._likely_reply, max(end, length))

    def _stall(self, y: mx.array) -> Iterator[None]:
        """Wait for room. A state that was parked comes back without what was let go meanwhile."""
        self._tokens = self.sequence.tokens + tokens_of([_int(y)])
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
        if sequence.is_ahead and self._unread is not None:
            sequence.look(_int(self._unread))
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
        """Read all but the last prompt token, cut on an absolute grid and at checkpoints."""
        tokens, end = self._tokens, len(self._tokens) - 1
        lease, sequence = self.lease, self.sequence
        assert lease is not None
        stops = self.cache.stops(lease, end)
        first = True
        while sequence.length < end:
            began = time.perf_counter()
            at = sequence.length
            stop = next((c for c in stops if c > at), end)
            to = min((at // self.chunk + 1) * self.chunk, stop, end)
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
        """Double-buffered: the next step is on its way before this one's token is looked at.

        The first token is told at once, with nothing else on its way before it. Where the guide
        waits, only the draw comes after the look.
        """
        job, c = self.job, self.counts
        began = time.perf_counter()
        guide = Guide(job, self.codec, self.grammars)
        logits = self.sequence.read(job.tokens[-1:])
        c.prefilled += 1
        y, logprobs = guide.draw(logits)
        _async_eval(y, logprobs)
        while True:
            ahead = self._ahead(y) if c.completion and self.sequence.live.can_undo else None
            if ahead is not None and guide.waits:
                _async_eval(ahead)
            drawn = self._draw(guide, ahead) if ahead is not None and not guide.waits else None
            token = _int(y)  # what was begun ahead may fail here
            if c.completion == 0:
                now = time.perf_counter()
                c.prefill_s, began = c.prefill_s + now - began, now
            if token in self.codec.eos_ids:
                c.reason = "stop"
                if ahead is not None:
                    self.sequence.undo()
                break
            c.completion += 1
            self.sink(self._token(token, logprobs))
            guide.take(token)
            ahead = self._ahead(y) if ahead is None else ahead
            next_y, next_logprobs = drawn or self._draw(guide, ahead)
            c.thinking_cut = guide.thinking_cut
            self.sequence.look(token)
            if self.lease is not None and self.sequence.length % SPILL_EVERY == 0:
                self.cache.spill(self.lease.holder)
            c.decode_s = time.perf_counter() - began
            if c.completion == job.max_tokens:
                c.reason = "length"
                break
            yield
            if c.completion % CLEAR_EVERY == 0:
                mx.clear_cache()
            y, logprobs = next_y, next_logprobs
            if self.lease is not None and self.sequence.length >= self.lease.holder.rows:
                yield from self._stall(y)

    def _ahead(self, y: mx.array) -> mx.array:
        """The logits behind `y`, which nobody has looked at."""
        self._unread = y
        logits: mx.array = self.sequence.read_ahead(y)
        return logits

    def _draw(self, guide: Guide, logits: mx.array) -> tuple[mx.array, mx.array]:
        after, logprobs = guide.draw(logits)
        _async_eval(after, logprobs)
        return after, logprobs

    def _token(self, token: int, logprobs: mx.array) -> Token:
        k = self.job.logprobs
        if k is None:
            return Token(token)
        top: tuple[tuple[int, float], ...] = ()
        if k:
            ids = mx.argpartition(-logprobs, kth=k - 1)[:k]
            pairs: Any = zip(ids.tolist(), logprobs[ids].tolist(), strict=True)  # type: ignore
            top = tuple(sorted(pairs, key=lambda p: -p[1]))
        chosen: Any = logprobs[token].item()
        return Token(token, float(chosen), top)


def _int(token: mx.array) -> int:
    value: Any = token.item()
    return int(value)


def _async_eval(*arrays: mx.array) -> None:
    start: Any = mx.async_eval
    start(*arrays)
