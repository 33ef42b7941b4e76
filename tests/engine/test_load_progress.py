"""While weights are read, it is told how many of them are in memory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
import zoo
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model as load_weights

from everwarm.engine.model import load_model, read_weights


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5_moe"])
def test_weights_read_in_groups_are_those_read_at_once(
    family: str, tmp_path: Path, smollm2: Path
) -> None:
    path = zoo.save(family, tmp_path / family, smollm2)
    model: Any = load_weights(path, lazy=True)[0]
    told: list[tuple[int, int]] = []
    nbytes = read_weights(model, lambda *b: told.append(b), group_bytes=1)
    weights = dict(tree_flatten(model.parameters()))
    expected: Any = dict(tree_flatten(load_weights(path)[0].parameters()))
    assert weights.keys() == expected.keys()
    assert all(mx.array_equal(w, expected[k]) for k, w in weights.items())
    done = [d for d, _ in told]
    assert done == sorted(done) and len(told) == len(weights)
    assert told[-1] == (nbytes, nbytes)


def test_what_is_told_is_in_memory(smollm2: Path) -> None:
    """Weights that were only described would be read at the first request, and told before."""
    gc.collect()  # else arrays of other tests may go while this one counts
    before = mx.get_active_memory()
    told: list[tuple[int, int]] = []
    loaded = load_model(
        str(smollm2),
        model_id=None,
        context_length=None,
        progress=lambda done, total: told.append((done, mx.get_active_memory() - before)),
    )
    assert len(told) >= 3
    assert all(held >= done for done, held in told)
    assert told[0][1] < loaded.info.nbytes / 2
