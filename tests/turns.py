"""Turns answered by the real engine loop over a tiny model, without a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zoo

from everwarm.cache.cache import Cache
from everwarm.engine.run import Run
from everwarm.engine.state import State
from everwarm.job import Ended, Job, Leased, Output, Token
from everwarm.request import Sampling
from everwarm.tokens import Mark, tokens_of

CUTTABLE = ["llama", "deepseek_v32"]
OTHERS = ["gemma3_text", "qwen3_5", "gpt_oss", "mamba2"]


class NoText:
    """The only part of a codec that a run without stop texts uses."""

    eos_ids = frozenset({2})


@dataclass
class Turn:
    reply: list[int]
    cached: int
    cached_from: str
    unseen: int
    prefilled: int


def words(seed: int, n: int) -> list[int]:
    return [10 + (seed * 7919 + i * 104729) % 3989 for i in range(n)]


def turn(cache: Cache, tokens: list[int], marks: list[Mark] | None = None, steps: int = 0) -> Turn:
    """Answer one prompt with six tokens, or cancel it after `steps` steps."""
    out: list[Output] = []
    job = Job("j", tokens_of(tokens), tuple(marks or ()), Sampling(), 6)
    run = Run(job, cache, NoText(), out.append, 32)  # type: ignore[arg-type]
    assert run.try_lease()
    generator = run.steps()
    for n, _ in enumerate(generator, 1):
        if n == steps:
            generator.close()  # type: ignore[attr-defined]
            break
    run.finish()
    leased, ended = out[0], out[-1]
    assert isinstance(leased, Leased) and isinstance(ended, Ended)
    reply = [o.id for o in out if isinstance(o, Token)]
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
        Cache(lambda: State(model), budget=1 << 34, keep=keep) for keep in (True, False)
    )


def marks_of(tokens: list[int]) -> list[Mark]:
    return [Mark(40, "system"), Mark(len(tokens) - 3, "prompt")]
