"""Measure everwarm's engine against mlx-lm's `generate_step`: same model, prompt and chunk size.

    python benchmarks/engine_floor.py MODEL_DIR [--prompt 1000] [--decode 40] [--rounds 3]

The two are timed in turns in one process; figures are medians, ratios are mlx-lm / everwarm of
speeds (1.0: the same; above: everwarm is faster). Also: matching against 131,072 cached tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
from mlx_lm.generate import generate_step

from everwarm.cache import tree
from everwarm.cache.cache import Cache
from everwarm.engine.job_run import JobRun
from everwarm.engine.model import LoadedModel, load_model
from everwarm.engine.state import ModelState
from everwarm.job import Ended, Job, Output
from everwarm.request import Sampling
from everwarm.tokens import tokens_of


class NeverEnds:
    """A codec without end-of-turn tokens, so that both sides decode equally many."""

    eos_ids: frozenset[int] = frozenset()


def ours(loaded: LoadedModel, prompt: list[int], n: int, chunk: int) -> tuple[float, float]:
    cache = Cache(lambda: ModelState(loaded.model), budget=1 << 40)
    out: list[Output] = []
    job = Job("b", tokens_of(prompt), (), Sampling(), n)
    run = JobRun(job, cache, NeverEnds(), out.append, chunk)  # type: ignore[arg-type]
    assert run.try_lease()
    for _ in run.steps():
        pass
    run.finish()
    ended = out[-1]
    assert isinstance(ended, Ended)
    return ended.prefill_s, ended.decode_s


def theirs(loaded: LoadedModel, prompt: list[int], n: int, chunk: int) -> tuple[float, float]:
    began = time.perf_counter()
    steps = generate_step(mx.array(prompt), loaded.model, max_tokens=n, prefill_step_size=chunk)
    next(steps)
    first = time.perf_counter()
    for _ in steps:
        pass
    return first - began, time.perf_counter() - first


def match_ms() -> dict[str, float]:
    root = tree.new_root()
    tokens = tokens_of(i * 7919 % 49_000 for i in range(131_072))
    root.children[tokens[0]] = tree.Node(root, tokens, len(tokens))
    early = tokens[:1000] + tokens_of([1]) + tokens[1001:]
    out = {}
    for name, query in (("whole", tokens[:]), ("early", early)):
        times = []
        for _ in range(20):
            began = time.perf_counter()
            tree.match(root, query)
            times.append(1000 * (time.perf_counter() - began))
        out[f"match_{name}_ms"] = round(statistics.median(times), 3)
    return out


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("model", type=Path)
    ap.add_argument("--prompt", type=int, default=1000)
    ap.add_argument("--decode", type=int, default=40)
    ap.add_argument("--chunk", type=int, default=512)
    ap.add_argument("--rounds", type=int, default=3)
    a = ap.parse_args()
    loaded = load_model(str(a.model), model_id=None, context_length=None)
    prompt = [10 + i * 7919 % 4000 for i in range(a.prompt)]
    rows: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for n in range(a.rounds + 1):
        pair: dict[str, Any] = {}
        for name, fn in (("theirs", theirs), ("ours", ours)):
            pair[name] = fn(loaded, prompt, a.decode, a.chunk)
        if n:
            for name in rows:
                rows[name].append(pair[name])
    median = {k: [statistics.median(x) for x in zip(*v, strict=True)] for k, v in rows.items()}
    result = {
        "model": loaded.info.id,
        "mlx": mx.__version__,
        "prompt_tokens": a.prompt,
        "decode_tokens": a.decode,
        "chunk": a.chunk,
        "prefill_s": {k: round(v[0], 3) for k, v in median.items()},
        "decode_s": {k: round(v[1], 3) for k, v in median.items()},
        "prefill_ratio": round(median["theirs"][0] / median["ours"][0], 3),
        "decode_ratio": round(median["theirs"][1] / median["ours"][1], 3),
        **match_ms(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
