"""A piece's arrays lie in few buffers, are copies, and take no more memory than one copy."""

from __future__ import annotations

import random
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
import numpy as np
import pytest

from everwarm.engine import packing
from everwarm.engine.packing import packed

SHAPES = [(1, 2, 30, 8), (1, 2, 30, 8), (1, 2, 30, 8), (1, 4, 4), (7,)]


def address(a: mx.array) -> int:
    """Where an array lies. bfloat16 has no numpy type of its own."""
    plain: Any = np.array(a.view(mx.uint16) if a.dtype == mx.bfloat16 else a, copy=False)
    return int(plain.__array_interface__["data"][0])


def made(r: random.Random, depth: int = 2) -> Any:
    """Lists and tuples of arrays, numbers and None, as snapshots are."""
    pick = r.random()
    if depth and pick < 0.4:
        parts = [made(r, depth - 1) for _ in range(r.randint(0, 4))]
        return parts if pick < 0.2 else tuple(parts)
    if pick > 0.9:
        return r.choice([None, 5, "x"])
    whole = mx.random.normal(r.choice(SHAPES)).astype(r.choice([mx.float32, mx.bfloat16]))
    return whole[..., 1:5] if whole.ndim > 3 and r.random() < 0.5 else whole


def same(a: Any, b: Any) -> bool:
    if isinstance(a, mx.array):
        return a.dtype == b.dtype and a.shape == b.shape and bool(mx.array_equal(a, b).item())
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def arrays(held: Any) -> list[mx.array]:
    if isinstance(held, mx.array):
        return [held]
    return [a for x in held for a in arrays(x)] if isinstance(held, list | tuple) else []


@pytest.mark.parametrize("seed", range(60))
def test_what_is_packed_is_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    r = random.Random(seed)
    monkeypatch.setattr(packing, "MOST_BYTES", r.choice([1, 4000, 1 << 28]))
    mx.random.seed(seed)
    held = [made(r) for _ in range(r.randint(0, 9))]
    copies, n = packed(held)
    assert same(held, copies)
    assert n <= len(arrays(held))
    own = {address(a) for a in arrays(held)}
    assert own.isdisjoint({address(a) for a in arrays(copies)})


def test_layers_of_one_shape_share_a_buffer_and_take_their_bytes_once() -> None:
    held = [(mx.random.normal((1, 8, 500, 64)), mx.random.normal((1, 8, 500, 64)), 3)] * 1
    held += [(mx.random.normal((1, 8, 500, 64)), mx.random.normal((1, 8, 500, 64)), 3)] * 9
    mx.eval(arrays(held))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    copies, n = packed([[(a[..., 10:410, :], b[..., 10:410, :], i) for a, b, i in held]])
    nbytes = sum(a.nbytes for a in arrays(copies))
    assert n == 1
    assert mx.get_peak_memory() - before <= 1.01 * nbytes
    one = arrays(copies)[0]
    assert mx.get_active_memory() - before <= 1.01 * nbytes
    del copies
    assert mx.get_active_memory() - before >= nbytes, "a view keeps its buffer"
    del one
    assert mx.get_active_memory() - before < nbytes / 10


def test_a_write_to_the_source_does_not_reach_a_copy() -> None:
    ring = mx.zeros((1, 1, 4, 4))
    other = mx.zeros((1, 1, 4, 4))
    mx.eval(ring, other)
    (copies, alone), _ = packed([[ring, other], mx.zeros((3,))])
    ring[..., 0:2, :] = 7.0
    mx.eval(ring)
    assert float(copies[0].sum().item()) == 0.0 and float(alone.sum().item()) == 0.0
