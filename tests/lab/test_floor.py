"""The bare forward, and the models it is measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import mlx.core as mx
import pytest
import zoo
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.engine import layers
from everwarm.engine.model import load_model
from everwarm.engine.state import ModelState
from everwarm.errors import ConfigError
from everwarm.lab import floor, shapes
from everwarm.lab.commands.floor_command import points_of
from everwarm.prompt.dialects import families


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5", "deepseek_v32"])
def test_a_deep_state_is_as_deep_as_one_that_was_read(family: str) -> None:
    model, _ = zoo.build(family)
    deep = floor.state_at(model, 2500, room=50)
    true = ModelState(model)
    for at in range(0, 2500, 500):
        true.read(mx.arange(at, at + 500))
        true.settle()
    for made, read in zip(layers.leaves(deep.caches), layers.leaves(true.caches), strict=True):
        assert layers.kind(made) == layers.kind(read)
        if layers.kind(made) != "opaque":
            assert made.offset == read.offset == 2500
        if layers.kind(made) == "cuttable":
            assert layers.capacity(made) >= 2550


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_a_suffix_is_read_once(family: str) -> None:
    model, _ = zoo.build(family)
    state = floor.state_at(model, 300, room=40)
    for n in (1, 2, 3, 17):
        before = state.length
        assert floor.read_suffix(state, n) > 0
        assert state.length == before + n


def test_each_point_has_its_rounds() -> None:
    model, _ = zoo.build("llama")
    got = floor.measure(model, 1500, 7, rounds=3)
    assert (got.depth, got.suffix_tokens, len(got.rounds_s)) == (1500, 7, 3)
    assert min(got.rounds_s) <= got.floor_s <= max(got.rounds_s)


@pytest.mark.parametrize("shape", list(shapes.SHAPES))
def test_a_made_model_loads_and_its_floor_is_measured(
    shape: str, smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERWARM_HOME", str(smollm2.parent.parent))
    made = CliRunner().invoke(
        app, ["bench", "make-model", shape, str(tmp_path / shape)], catch_exceptions=False
    )
    loaded = load_model(made.stdout.strip(), model_id=None, context_length=None)
    assert loaded.info.id == shape and families.of(loaded.codec).calls
    args = ["bench", "floor", str(tmp_path / shape), "--at", "1,200:5", "--rounds", "1", "--json"]
    printed: Any = json.loads(CliRunner().invoke(app, args, catch_exceptions=False).stdout)
    assert [(f["depth"], f["suffix_tokens"]) for f in printed["floors"]] == [(1200, 5)]


def test_equal_shapes_have_equal_weights(smollm2: Path, tmp_path: Path) -> None:
    one, two = (shapes.make_model("llama-2x1", tmp_path / n, smollm2) for n in ("a", "b"))
    files = [(p / "model.safetensors").read_bytes() for p in (one, two)]
    assert files[0] == files[1]


@pytest.mark.parametrize("text", ["100", "0:4", "5:0", "a:1", ":"])
def test_a_point_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=f"not {text}"):
        points_of([text])


def test_an_unknown_shape_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no shape opt-9"):
        CliRunner().invoke(
            app, ["bench", "make-model", "opt-9", str(tmp_path)], catch_exceptions=False
        )
