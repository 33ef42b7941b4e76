"""The engine's own loop under random histories; its arrays carry the oracle's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
from conversations import Conversations, Talk, steps
from conversations import Job as ConversationsJob
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from everwarm.cache.cache import Cache, Lease
from everwarm.engine.job_run import JobRun
from everwarm.engine.lane import Lane, decode
from everwarm.errors import EngineError
from everwarm.job import Ended, Job, Leased, Output, Token
from everwarm.request import Sampling
from everwarm.testing import EOS_IDS, VOCABULARY, OracleState
from everwarm.tokens import Tokens, tokens_of


class LogitsState(OracleState):
    """An oracle that says its next token as logits."""

    def read(self, tokens: Tokens[int] | mx.array) -> mx.array:
        literal = (
            tokens if isinstance(tokens, tokens_of().__class__) else tokens_of(tokens.tolist())
        )
        super().read(literal)
        return (mx.arange(VOCABULARY) == self.says()).astype(mx.float32)[None, None]


LONGEST_PREFILL = 40
"""Steps."""


class Codec:
    eos_ids = EOS_IDS


class EngineRun:
    """`engine.run.Run`, driven as the engine's thread drives it, with `OracleRun`'s face."""

    def __init__(self, cache: Cache, talk: Talk, n: int, chunk: int) -> None:
        self.tokens, marks = talk.prompt()
        self.max_tokens = n
        self.over = False
        self._out: list[Output] = []
        job = Job("j", self.tokens, marks, Sampling(), n, namespace=talk.namespace)
        codec: Any = Codec()
        self._run = JobRun(job, cache, codec, self._out.append, chunk, likely_reply=2)
        self._run.has_company = n % 2 == 0
        self._steps: Iterator[None] | None = None

    @property
    def lane(self) -> Lane | None:
        """Its reply, where its next step may be one of several lanes."""
        run = self._run
        may_step = self.is_reading and run.phase == "decode" and run.can_go_on()
        return run.lane if may_step else None

    @property
    def lease(self) -> Lease | None:
        return self._run.lease

    @property
    def is_reading(self) -> bool:
        return self._steps is not None and not self.over and not self._run.is_parked

    @property
    def state(self) -> OracleState | None:
        live: Any = self.lease.sequence.live if self.lease is not None else None
        return live  # type: ignore[no-any-return]

    @property
    def start(self) -> int:
        return next((o.cached_tokens for o in self._out if isinstance(o, Leased)), 0)

    @property
    def prefilled(self) -> int:
        return self._run.counts.prefilled

    @property
    def reply(self) -> list[int]:
        return [o.id for o in self._out if isinstance(o, Token)]

    @property
    def read_reply(self) -> list[int]:
        """The reply, but a first token that was told before it was read."""
        lane = self._run.lane
        return self.reply[:-1] if lane is not None and lane.is_told else self.reply

    def step(self) -> bool:
        if self._steps is None or self._run.is_parked:
            had_lease = self._run.lease is not None
            if not self._run.try_lease():
                return had_lease and self._run.lease is None  # a file was lost: begin again
            self._steps = self._steps or self._run.steps()
            return True
        if not self._run.can_go_on():
            self._run.park()
            return True
        try:
            next(self._steps)
        except StopIteration:
            self._finish()
        except EngineError:
            self.over = True
            raise
        return True

    def cancel(self) -> None:
        self.close()
        self._finish()

    def close(self) -> None:
        if self._steps is not None:
            self._steps.close()  # type: ignore[attr-defined]

    def _finish(self) -> None:
        self.over = True
        self._run.finish()
        ended = self._out[-1]
        assert isinstance(ended, Ended) and ended.completion_tokens == len(self.reply)


class OnTheEngine(Conversations):
    """The same clients, served by the engine's loop."""

    state = LogitsState

    def new_run(self, cache: Cache, talk: Talk, n: int, chunk: int) -> Any:
        return EngineRun(cache, talk, n, chunk)

    @precondition(lambda self: len(self.jobs) > 1)
    @rule(model=st.sampled_from([0, 1]), n=st.sampled_from([1, 2, 5]))
    def they_decode_together(self, model: int, n: int) -> None:
        """All of a model's jobs that get as far."""
        for job in [j for j in self.jobs if j.talk.model == model]:
            for _ in range(LONGEST_PREFILL):
                if job.run.over or job.run.lane is not None or not self.step(job):
                    break
        for _ in range(n):
            lanes = self.lanes(model)
            steps["together"] += len(lanes) > 1
            decode([job.run.lane for job in lanes])
            for job in lanes:
                self.step(job)

    def lanes(self, model: int) -> list[ConversationsJob]:
        """Jobs of a model whose replies are being written."""
        of = [j for j in getattr(self, "jobs", ()) if j.talk.model == model]
        return [j for j in of if j.run.lane is not None and not j.run.lease.holder.ending]
