"""One reply on its way, and the step that all of them take together.

    read     what each lane has drawn, in one forward
    draw     each lane's next token; all of it is on its way before anything is looked at
    look     at what was read: tell it, and note it

A lane's first token is told before anything is read behind it. Where the guide waits, or the state
cannot undo, only the draw, or the read, comes after the look. An error of one lane is its own; one
of the model, in the forward, is everybody's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

import mlx.core as mx

from everwarm.cache import sequence as sequences
from everwarm.cache.cache import Lease
from everwarm.codec import Codec
from everwarm.engine.guide import Guide
from everwarm.job import Job, Output, Token
from everwarm.tokens import tokens_of

_T = TypeVar("_T")
SPILL_EVERY: Final = 2048
"""Tokens. Should the engine die, these are lost at most, and as many that are being written."""


@dataclass(slots=True)
class JobCounts:
    """What a job has done so far."""

    prefilled: int = 0
    completion: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    reason: Literal["stop", "length", "cancelled"] = "cancelled"
    thinking_cut: bool = False


class Lane:
    """A reply: what is read next, drawn and told. Live: engine thread only.

    `lease`: gives the present one, which changes where a reply was parked. `unread`: the token
    that `decode` reads next; it `is_told` already where it had to be. `error`: what its part of
    a step raised.
    """

    def __init__(
        self, job: Job, codec: Codec, guide: Guide, counts: JobCounts,
        lease: Callable[[], Lease], spill: Callable[[Lease], None], sink: Callable[[Output], None],
    ) -> None:  # fmt: skip
        self._job, self._codec, self._guide, self._counts = job, codec, guide, counts
        self._lease, self._spill, self._sink = lease, spill, sink
        self._began = time.perf_counter()
        self._token = job.tokens[-1]
        self.is_told = True  # the prompt's last token is known
        self._logits: mx.array | None = None
        self._next: tuple[mx.array, mx.array] | None = None
        self._logprobs: mx.array | None = None
        self.unread = mx.array([self._token])
        self.has_stepped = self.is_over = False
        self.error: Exception | None = None

    @property
    def sequence(self) -> sequences.Sequence:
        """What is read."""
        return self._lease().sequence

    def end_step(self) -> None:
        """Raise what this step has raised."""
        self.has_stepped = False
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # whose frames keep states alive, in a circle with this one

    def attempt(self, action: Callable[[], None]) -> None:
        """Do a part of the step. What it raises is kept until `end_step`, and ends the lane."""
        if self.error is not None:
            return
        try:
            action()
        # A sampler, a grammar, a tokenizer, a client's sink: any of them raises anything.
        except Exception as e:
            self.error = e

    def draw_ahead(self, logits: mx.array) -> None:
        """Draw the token behind the one that was read, if that can be done without knowing it."""
        self._logits = logits
        may_draw = self.is_told or not self._guide.waits
        self._next = self._guide.draw(logits) if may_draw else None

    @property
    def on_its_way(self) -> tuple[mx.array, ...]:
        """What is to be computed before anything is looked at."""
        assert self._logits is not None
        return self._next or (self._logits,)

    def look(self) -> None:
        """Tell the token that was read, if nobody has; note it; go on to the next one."""
        if not self.is_told and not self._tell():
            self.sequence.undo()
            return
        if self._next is None:
            assert self._logits is not None
            self._next = self._guide.draw(self._logits)
            async_eval(*self._next)
        self._note()
        self.is_told = False
        c = self._counts
        c.thinking_cut = self._guide.thinking_cut
        if c.completion == 0:
            c.prefilled += 1
        else:
            c.decode_s = time.perf_counter() - self._began
        if c.completion == self._job.max_tokens:
            self._end("length")
            return
        self.unread, self._logprobs = self._next
        self._next = self._logits = None

    def _note(self) -> None:
        lease = self._lease()
        lease.sequence.look(self._token)
        if lease.sequence.length % SPILL_EVERY == 0:
            self._spill(lease)

    @property
    def tells_at_once(self) -> bool:
        """Whether its token has to be told before anything is read behind it."""
        is_first = self._counts.completion == 0
        waits = is_first or not self.sequence.live.can_undo
        return waits and not (self.is_over or self.is_told)

    def tell_at_once(self) -> None:
        """Tell what was drawn; nothing is read behind it yet."""
        self.is_told = self._tell()

    def read_told(self) -> None:
        """Read a token that was told before it was read: what a client has is filed, too."""
        if self.is_told and self._counts.completion and not self.is_over:
            self.is_told = False
            self.sequence.read(tokens_of([self._token]))

    def _tell(self) -> bool:
        """Wait for the token, and tell it. False: it ends the reply."""
        c = self._counts
        self._token = int_of(self.unread)  # what was begun ahead may fail here
        if c.completion == 0:
            now = time.perf_counter()
            c.prefill_s, self._began = c.prefill_s + now - self._began, now
        if self._token in self._codec.eos_ids:
            self._end("stop")
            return False
        c.completion += 1
        assert self._logprobs is not None
        self._sink(_told(self._token, self._logprobs, self._job.logprobs))
        self._guide.take(self._token)
        return True

    def _end(self, reason: Literal["stop", "length"]) -> None:
        self._counts.reason, self.is_over = reason, True


def decode(lanes: Sequence[Lane]) -> None:
    """One step of each lane. Raises nothing: what goes wrong is each lane's `error`."""
    for lane in lanes:
        lane.has_stepped = True
    read = _for_all(lanes, lambda: _read(lanes)) or ()
    for lane, logits in zip(lanes, read, strict=False):
        lane.attempt(partial(lane.draw_ahead, logits))
    _for_all(lanes, lambda: async_eval(*[a for n in lanes if not n.error for a in n.on_its_way]))
    for lane in lanes:
        lane.attempt(lane.look)
    for lane in lanes:
        if lane.error is None and lane.tells_at_once:
            lane.attempt(lane.tell_at_once)


def _read(lanes: Sequence[Lane]) -> list[mx.array]:
    return sequences.read_together([n.sequence for n in lanes], [n.unread for n in lanes])


def _for_all(lanes: Sequence[Lane], action: Callable[[], _T]) -> _T | None:
    """Do what is done for all of them at once; what it raises is everybody's error."""
    try:
        return action()
    # A model raises anything, and nobody knows at whose rows.
    except Exception as e:
        for lane in lanes:
            lane.error = lane.error or e
        return None


def _told(token: int, logprobs: mx.array, k: int | None) -> Token:
    if k is None:
        return Token(token)
    top: tuple[tuple[int, float], ...] = ()
    if k:
        ids = mx.argpartition(-logprobs, kth=k - 1)[:k]
        pairs: Any = zip(ids.tolist(), logprobs[ids].tolist(), strict=True)  # type: ignore
        top = tuple(sorted(pairs, key=lambda p: -p[1]))
    chosen: Any = logprobs[token].item()
    return Token(token, float(chosen), top)


def int_of(token: mx.array) -> int:
    """The one number of an array; waits for it."""
    value: Any = token.item()
    return int(value)


def async_eval(*arrays: mx.array) -> None:
    """Begin to compute arrays."""
    start: Any = mx.async_eval
    start(*arrays)
