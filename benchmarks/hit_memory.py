"""Peak memory and buffer moves of a hit, against the bare forward of the same suffix.

    python benchmarks/hit_memory.py SHAPE [--length 20000] [--turns 5]

Each turn reads 40 new tokens behind `length` and writes 8. *Bare forward*: the same calls on a
plain prompt cache with the same room. Figures are bytes; checkpoints that rested before the hit
are not its cost and are taken off. The ratio is everwarm / bare.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import shapes  # isort: skip  (chooses the BLAS before mlx)
import mlx.core as mx
import mlx_lm
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from everwarm.cache.cache import Cache
from everwarm.config import Settings
from everwarm.engine import layers
from everwarm.engine.job_run import JobRun
from everwarm.engine.state import ModelState
from everwarm.job import Job, Output
from everwarm.models import ensure_default
from everwarm.request import Sampling
from everwarm.tokens import Mark, tokens_of

NEW, REPLY, CHUNK = 40, 8, 512


class NeverEnds:
    """A codec without end-of-turn tokens, so that every reply has the same length."""

    eos_ids: frozenset[int] = frozenset()


def ids(start: int, n: int) -> list[int]:
    return [10 + (start + i) * 7919 % 40_000 for i in range(n)]


def addresses(caches: list[Any]) -> list[int]:
    """Where the buffers of cuttable layers lie; the views are gone when this returns."""
    cuttable = [c for c in layers.leaves(caches) if layers.kind(c) == "cuttable"]
    arrays = [a for c in cuttable for a in (c.keys, c.values)]
    return [np.array(a, copy=False).__array_interface__["data"][0] for a in arrays]


def ours(model: Any, length: int, turns: int) -> tuple[list[int], int]:
    """Peak bytes of each hit less what rested before, and how many hits moved a buffer."""
    cache = Cache(lambda: ModelState(model), budget=1 << 40)
    tokens = ids(0, length)
    _turn(cache, tokens)
    peaks, moved = [], 0
    for n in range(turns):
        tokens = tokens + ids(1_000 * (n + 1), NEW)
        before = addresses(cache.memory.states[0].sequence.live.caches)  # type: ignore[attr-defined]
        resting = cache.nbytes - cache._live_bytes()
        mx.clear_cache()
        mx.reset_peak_memory()
        tokens += _turn(cache, tokens)
        peaks.append(mx.get_peak_memory() - resting)
        moved += addresses(cache.memory.states[0].sequence.live.caches) != before  # type: ignore[attr-defined]
    return peaks, moved


def _turn(cache: Cache, tokens: list[int]) -> list[int]:
    out: list[Output] = []
    marks = (Mark(len(tokens) - 4, "prompt"),)
    job = Job("b", tokens_of(tokens), marks, Sampling(), REPLY)
    run = JobRun(job, cache, NeverEnds(), out.append, CHUNK)  # type: ignore[arg-type]
    assert run.try_lease()
    for _ in run.steps():
        pass
    run.finish()
    return [o.id for o in out if type(o).__name__ == "Token"]  # type: ignore[union-attr]


def bare(model: Any, length: int, turns: int) -> list[int]:
    caches = make_prompt_cache(model)
    leaves = layers.leaves(caches)

    def read(tokens: list[int]) -> mx.array:
        logits: mx.array = model(mx.array([tokens]), cache=caches)
        mx.eval([a for c in leaves for a in layers.arrays(c)])
        return logits

    tokens = ids(0, length)
    for at in range(0, length, CHUNK):
        read(tokens[at : at + CHUNK])
    for c in leaves:
        if layers.kind(c) == "cuttable":
            layers.grow(c, length + max(512, length // 16))
    peaks = []
    for n in range(turns):
        suffix = ids(1_000 * (n + 1), NEW)
        mx.clear_cache()
        mx.reset_peak_memory()
        read(suffix[:-4])
        read(suffix[-4:-1])
        y = mx.argmax(model(mx.array([suffix[-1:]]), cache=caches)[:, -1, :], axis=-1)
        for _ in range(REPLY):
            y = mx.argmax(model(y[None], cache=caches)[:, -1, :], axis=-1)
            mx.eval(y)
        peaks.append(mx.get_peak_memory())
    return peaks


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("shape", choices=list(shapes.SHAPES))
    ap.add_argument("--length", type=int, default=20_000)
    ap.add_argument("--turns", type=int, default=5)
    a = ap.parse_args()
    tokenizer = ensure_default(Settings().home, convert=shapes.no_convert)
    with tempfile.TemporaryDirectory() as tmp:
        model = mlx_lm.load(str(shapes.make_model(a.shape, Path(tmp), tokenizer)))[0]
    theirs = bare(model, a.length, a.turns)
    mx.clear_cache()
    peaks, moved = ours(model, a.length, a.turns)
    result = {
        "shape": a.shape,
        "length": a.length,
        "bare_peak_bytes": max(theirs),
        "everwarm_peak_bytes": max(peaks),
        "ratio": round(max(peaks) / max(theirs), 4),
        "hits_that_moved_a_buffer": moved,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
