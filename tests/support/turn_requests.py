"""Turns answered by the real engine loop over a tiny model, without a thread."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import zoo

from everwarm.cache.cache import Cache
from everwarm.engine.job_run import JobRun
from everwarm.engine.state import ModelState
from everwarm.job import Ended, Job, Leased, Output, Token
from everwarm.request import Sampling
from everwarm.tokens import Mark, tokens_of

CUTTABLE = ["llama", "deepseek_v32"]
OTHERS = ["gemma3_text", "qwen3_5", "gpt_oss", "mamba2"]


class NoText:
    """The only part of a codec that a run without stop texts uses."""

    eos_ids = frozenset({2})


class Reply(list[int]):
    """A reply's tokens. Two agree if they are equal up to a tie, which rounding may decide.

    Warm and cold cut their calls differently, and a BLAS rounds by shape and by address: a token
    whose lead over the next one is below `TIE` may fall either way, and all behind it with it.
    """

    leads: list[float]

    def agrees(self, other: Reply) -> bool:
        for a, b, lead in zip(self, other, other.leads, strict=False):
            if a != b:
                return lead < TIE
        return len(self) == len(other)


TIE = 1e-3


@dataclass
class Turn:
    reply: Reply
    cached: int
    cached_from: str
    unseen: int
    prefilled: int


def words(seed: int, n: int) -> list[int]:
    return [10 + (seed * 7919 + i * 104729) % 3989 for i in range(n)]


def turn(
    cache: Cache,
    tokens: list[int],
    marks: list[Mark] | None = None,
    steps: int = 0,
    max_tokens: int = 6,
    codec: Any = None,
) -> Turn:
    """Answer one prompt with six tokens, or cancel it after `steps` steps."""
    out: list[Output] = []
    job = Job("j", tokens_of(tokens), tuple(marks or ()), Sampling(), max_tokens, logprobs=2)
    run = JobRun(job, cache, codec or NoText(), out.append, 32)
    until = time.monotonic() + 30
    while not run.try_lease():
        assert time.monotonic() < until, "the state never came back from disk"
        time.sleep(0.001)
    generator = run.steps()
    for n, _ in enumerate(generator, 1):
        if n == steps:
            generator.close()  # type: ignore[attr-defined]
            break
    run.finish()
    leased, ended = out[0], out[-1]
    assert isinstance(leased, Leased) and isinstance(ended, Ended)
    said = [o for o in out if isinstance(o, Token)]
    reply = Reply(o.id for o in said)
    reply.leads = [o.top[0][1] - o.top[1][1] for o in said]
    return Turn(
        reply,
        leased.cached_tokens,
        leased.cached_from,
        leased.unseen_tokens,
        ended.prefilled_tokens,
    )


def caches(family: str) -> tuple[Cache, Cache]:
    model: Any = zoo.build(family)[0]
    return tuple(  # type: ignore[return-value]
        Cache(lambda: ModelState(model), budget=1 << 34, keep=keep) for keep in (True, False)
    )


def marks_of(tokens: list[int]) -> list[Mark]:
    return [Mark(40, "system"), Mark(len(tokens) - 3, "prompt")]
