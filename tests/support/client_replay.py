"""Warm against cold, bit by bit: the recorded calls of real turns, fed again to a fresh cache.

    turn      [ restored ......... )[ call ][ call ][1][1][1]     logits of each call are kept
    replay    [a)[b)[c)[d) the calls that once made what was restored, then the same calls again

Only the model is wrapped, to see its calls; state, cache and loop are the engine's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import zoo  # isort: skip  (chooses the BLAS before mlx)
import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from everwarm.cache.cache import Cache
from everwarm.engine import layers
from everwarm.engine.job_run import JobRun
from everwarm.engine.kv import Arrangement, arrange
from everwarm.engine.state import ArrayPiece, ModelState
from everwarm.job import Job, Leased, Output, Token
from everwarm.request import Sampling
from everwarm.tokens import Mark, tokens_of

CHUNK = 16
REPLY = 5

ARRANGED = {
    "llama, 8 bits": Arrangement(bits=8, group_size=64),
    "llama, 4 bits": Arrangement(bits=4, group_size=32),
    "qwen3_5, 8 bits": Arrangement(bits=8, group_size=32),
    "llama, window": Arrangement(window=24),
}
"""Families whose attention keeps its rows otherwise."""

__all__ = ["ARRANGED", "CHUNK", "REPLY", "Recorder", "Turn", "Warm", "arranged", "feed", "zoo"]


def arranged(variant: str) -> Any:
    """A tiny model with the rows that `ARRANGED` has under that name."""
    config = zoo.small(variant.partition(",")[0])
    (config.get("text_config") or config)["head_dim"] = 64
    model = zoo.make(config)
    arrange(model, ARRANGED[variant])
    return model


class Recorder:
    """A model that notes which state read what, and what came out."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.calls: list[tuple[Any, list[int], mx.array]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, ids: mx.array, cache: Any) -> mx.array:
        logits: mx.array = self.model(ids, cache=cache)
        mx.eval(logits)
        self.calls.append((cache, ids[0].tolist(), logits[0]))  # type: ignore[arg-type]
        return logits


Calls = list[tuple[int, list[int], int]]
"""(begin, ids, end): a call read ids at `begin`; of its rows those up to `end` are still there."""


def upto(calls: Calls, at: int) -> Calls:
    """What is left of calls where all behind `at` is taken away."""
    return [(begin, ids, min(end, at)) for begin, ids, end in calls if begin < at]


class Trace(ModelState):
    """Goes before a state's class: notes the calls that a state and its pieces were made of."""

    calls: Calls

    def __init__(self, model: Any, *, width: int | None = None) -> None:
        super().__init__(model, width=width)
        self.calls = []

    def read(self, tokens: Any) -> mx.array:
        begin = self.length
        out = super().read(tokens)
        ids = tokens.tolist()
        self.calls = [*self.calls, (begin, ids, self.length)]
        return out

    def undo(self) -> None:
        super().undo()
        self.calls = self.calls[:-1]

    def cut(self, start: int, end: int) -> ArrayPiece:
        return self._named(super().cut(start, end))

    def lend(self, start: int, end: int) -> ArrayPiece:
        return self._named(super().lend(start, end))

    def release(self, start: int, end: int) -> ArrayPiece:
        return self._named(super().release(start, end))

    def checkpoint(self) -> ArrayPiece | None:
        piece = super().checkpoint()
        return piece if piece is None else self._named(piece)

    def _named(self, piece: ArrayPiece) -> ArrayPiece:
        piece.calls = self.calls  # type: ignore[attr-defined]
        return piece

    def rewind(self, at: int, checkpoint: ArrayPiece | None) -> None:
        self.calls = upto(self.calls, at)
        super().rewind(at, checkpoint)

    def put_back(self, checkpoint: ArrayPiece | None) -> None:
        if checkpoint is not None:
            self.calls = checkpoint.calls  # type: ignore[attr-defined]
        super().put_back(checkpoint)

    def extend(self, piece: ArrayPiece, start: int, end: int, piece_start: int) -> None:
        super().extend(piece, start, end, piece_start)
        theirs = [c for c in upto(piece.calls, end) if c[2] > start]  # type: ignore[attr-defined]
        self.calls = upto(self.calls, theirs[0][0]) + theirs


def feed(model: Any, cache: Any, ids: list[int]) -> mx.array:
    """One call on a plain prompt cache."""
    logits: mx.array = model(mx.array([ids]), cache=cache)
    mx.eval(logits, layers.arrays(cache))
    return logits[0]


def distance(a: mx.array, b: mx.array) -> float:
    """The largest difference; not a number counts as endless."""
    worst = np.abs(np.array(a.astype(mx.float32)) - np.array(b.astype(mx.float32))).max()
    return float("inf") if np.isnan(worst) else float(worst)


class Turn:
    """One job on the engine's loop, a step at a time."""

    def __init__(self, warm: Warm, tokens: list[int], marks: list[Mark], eos: frozenset[int]):
        self.warm, self.tokens = warm, tokens
        self.out: list[Output] = []
        self.over = False
        job = Job("j", tokens_of(tokens), tuple(marks), Sampling(), REPLY)
        codec: Any = type("NoText", (), {"eos_ids": eos})
        self._run = JobRun(job, warm.cache, codec, self.out.append, CHUNK)
        assert self._run.try_lease() and self._run.lease is not None
        self._holder = self._run.lease.holder
        self._caches = self._holder.sequence.live.caches  # type: ignore[attr-defined]
        self.made: Calls = self._holder.sequence.live.calls  # type: ignore[attr-defined]
        self._first = len(warm.recorder.calls)
        self._steps: Iterator[None] = self._run.steps()

    def steps(self, n: int) -> Turn:
        """At most `n` steps; the turn may end with them, or have ended before."""
        for _ in range(0 if self.over else n):
            if next(self._steps, "end") == "end":
                return self._end()
        return self

    def cancel(self) -> Turn:
        self._steps.close()  # type: ignore[attr-defined]
        return self._end()

    def _end(self) -> Turn:
        self.over = True
        self._run.finish()
        own = [c for c in self.warm.recorder.calls[self._first :] if c[0] is self._caches]
        self.warm.judge(self, [(ids, logits) for _, ids, logits in own])
        return self

    @property
    def leased(self) -> Leased:
        found = self.out[0]
        assert isinstance(found, Leased)
        return found

    @property
    def reply(self) -> list[int]:
        return [o.id for o in self.out if isinstance(o, Token)]


class Warm:
    """A cache of a real model, with all calls that its states were made of."""

    def __init__(self, model: Any, state: type[ModelState] = ModelState) -> None:
        self.model = model
        self.recorder = Recorder(model)
        traced: Any = type("Traced", (Trace, state), {})
        self.cache = Cache(lambda: traced(self.recorder), budget=1 << 34)
        self.difference = 0.0
        self.compared = 0
        self._cold: Any = make_prompt_cache(model)
        self._fed: Calls = []

    def turn(
        self, tokens: list[int], *marks: int, eos: frozenset[int] = frozenset(), cancel: int = 0
    ) -> Turn:
        """Answer a prompt, or cancel after some steps. `marks[0]` is the end of the system."""
        turn = self.opened(tokens, *marks, eos=eos)
        return turn.steps(cancel).cancel() if cancel else turn.steps(1000)

    def opened(self, tokens: list[int], *marks: int, eos: frozenset[int] = frozenset()) -> Turn:
        kinds = [Mark(at, "user" if i else "system") for i, at in enumerate(marks)]
        return Turn(self, tokens, [*kinds, Mark(len(tokens) - 3, "prompt")], eos)

    def judge(self, turn: Turn, calls: list[tuple[list[int], mx.array]]) -> None:
        """Feed what made the restored part, then the turn's calls, to a fresh cache; compare."""
        at = turn.leased.cached_tokens
        cold = self._restored(turn.made)
        for ids, logits in calls:
            again = feed(self.model, cold, ids)
            self.difference = max(self.difference, distance(again, logits))
            self.compared += len(ids)
            self._fed.append((at, ids, at + len(ids)))
            at += len(ids)

    def _restored(self, made: Calls) -> Any:
        """A plain cache that was fed these calls; a cut inside one is a trim."""
        if made != self._fed:  # else the last one has just that behind it
            self._cold, self._fed = make_prompt_cache(self.model), [*made]
            for begin, ids, end in made:
                feed(self.model, self._cold, ids)
                if begin + len(ids) > end:
                    trim_prompt_cache(self._cold, begin + len(ids) - end)
        return self._cold
