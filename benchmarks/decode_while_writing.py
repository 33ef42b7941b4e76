"""Decode speed while the disk tier writes a gigabyte, against decode speed while it rests.

    python benchmarks/decode_while_writing.py MODEL_DIR [--rounds 10] [--gigabytes 1]

Windows of both kinds take turns in one process. A round has tokens per second while it writes, to
the mean of the idle windows before and after it. The noise is of an idle window, the same way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
import numpy as np

from everwarm.cache.disk.blob import Array, Layer, PieceRecord
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import DiskLimits
from everwarm.cache.identity import Trail
from everwarm.engine.model import load_model
from everwarm.engine.state import ModelState
from everwarm.tokens import tokens_of

LEAST_STEPS = 10


class Decoder:
    """Writes tokens one after the other, each as soon as the last is known."""

    def __init__(self, model: Any) -> None:
        self.state = ModelState(model)
        self.y = mx.argmax(self.state.read(tokens_of(range(10, 138)))[:, -1, :], axis=-1)
        mx.eval(self.y)

    def step(self) -> None:
        self.y = mx.argmax(self.state.read(self.y)[:, -1, :], axis=-1)
        mx.eval(self.y)


def window(decoder: Decoder, is_over: Any) -> float:
    """Tokens per second until something is over, at least a few."""
    began, n = time.perf_counter(), 0
    while n < LEAST_STEPS or not is_over():
        decoder.step()
        n += 1
    return n / (time.perf_counter() - began)


def rest(decoder: Decoder) -> float:
    until = time.perf_counter() + 3
    return window(decoder, lambda: time.perf_counter() > until)


def write(store: DiskStore, start: int, data: Any) -> Any:
    tokens = tokens_of(range(start, start + 64))
    trail = Trail(bytes(32), f"run{start}")
    parent = trail.id
    record = PieceRecord(
        "segment", bytes(32), f"run{start}", parent, trail.feed(tokens), 0, 64, tokens
    )
    layer = Layer("cuttable", 64, (Array("F32", data.shape),))
    return store.write(record, (layer,), [data])


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("--rounds", type=int, default=10)
    ap.add_argument("--gigabytes", type=float, default=1.0)
    a = ap.parse_args()
    decoder = Decoder(load_model(str(a.model), model_id=None, context_length=None).model)
    data = np.ones((1, 1, 64, int(a.gigabytes * 1e9 / 256)), np.float32)
    idle, busy, seconds = [], [], []
    with tempfile.TemporaryDirectory(dir=Path.home()) as tmp:
        limits = DiskLimits(budget_bytes=20 * 10**9, keep_free_bytes=0)
        store = DiskStore.open(Path(tmp) / "cache", limits=limits)
        store.is_busy = True  # as the engine says while a reply runs
        window(decoder, lambda: True)
        idle.append(rest(decoder))
        for n in range(a.rounds):
            began, done = time.perf_counter(), write(store, 1000 * n, data)
            busy.append(window(decoder, done.done))
            seconds.append(time.perf_counter() - began)
            assert done.result() is not None, store.stats()
            idle.append(rest(decoder))
        store.close()
    ratios = [2 * b / (x + y) for b, x, y in zip(busy, idle, idle[1:], strict=False)]
    noise = [2 * y / (x + z) for x, y, z in zip(idle, idle[1:], idle[2:], strict=False)]
    result = {
        "model": a.model.name,
        "mlx": mx.__version__,
        "gigabytes": a.gigabytes,
        "seconds": [round(x, 2) for x in seconds],
        "idle_tps": [round(x, 2) for x in idle],
        "writing_tps": [round(x, 2) for x in busy],
        "ratios": [round(x, 3) for x in ratios],
        "ratio": round(statistics.median(ratios), 3),
        "noise": [round(x, 3) for x in sorted(noise)],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
