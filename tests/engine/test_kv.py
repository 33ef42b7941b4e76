"""Rows in fewer bits, and a window of the last tokens: what is arranged, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import zoo
from mlx_lm.models.cache import RotatingKVCache
from turn_requests import marks_of, turn, words

from everwarm.cache.cache import Cache
from everwarm.config import Settings, load_settings
from everwarm.engine import layers
from everwarm.engine.fingerprint import fingerprint
from everwarm.engine.kv import Arrangement, arrange
from everwarm.engine.model import load_model
from everwarm.engine.state import ModelState, bytes_at
from everwarm.errors import ConfigError
from everwarm.tokens import tokens_of

WIDE = {"head_dim": 64}
EIGHT, FOUR = Arrangement(bits=8, group_size=64), Arrangement(bits=4, group_size=64)
WINDOW = Arrangement(window=24)


def arranged(wanted: Arrangement, family: str = "llama", **over: Any) -> Any:
    model = zoo.build(family, **(over or WIDE))[0]
    arrange(model, wanted)
    return model


@pytest.mark.parametrize(
    ("family", "wanted", "says"),
    [
        ("gemma3_text", EIGHT, "kv_bits .* of RotatingKVCache"),
        ("deepseek_v32", EIGHT, "kv_bits .* of CacheList"),
        ("mamba2", EIGHT, "kv_bits .* no layer of KVCache"),
        ("gemma3_text", WINDOW, "max_kv_size .* of RotatingKVCache"),
        ("qwen3_5", WINDOW, "max_kv_size .* of ArraysCache"),
        ("llama4_text", WINDOW, "max_kv_size .* of ChunkedKVCache"),
    ],
)
def test_what_layers_cannot_do_is_refused_by_name(
    family: str, wanted: Arrangement, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        arrange(zoo.build(family)[0], wanted)


def test_a_group_that_does_not_divide_a_row_is_refused() -> None:
    model = zoo.build("llama", head_dim=32)[0]
    with pytest.raises(ConfigError, match=r"kv_group_size 64 .* rows of 32 numbers"):
        arrange(model, EIGHT)
    arrange(model, Arrangement(bits=8, group_size=32))


def test_attention_that_cannot_read_quantised_rows_is_refused() -> None:
    """Latent attention computes with the rows itself."""
    model = zoo.build("deepseek_v3", kv_lora_rank=64, qk_rope_head_dim=64)[0]
    with pytest.raises(ConfigError, match="cannot work with kv_bits=8"):
        arrange(model, EIGHT)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"kv_bits": 8, "max_kv_size": 64}, "kv_bits and max_kv_size"),
        ({"kv_group_size": 32}, "kv_group_size"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    flags: dict[str, int], says: str, tmp_path: Path
) -> None:
    settings = load_settings(flags, {"EVERWARM_HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match=says):
        Arrangement.of(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("kv_bits", 3), ("kv_group_size", 48), ("quantized_kv_start", 5000), ("max_kv_size", 4)],
)
def test_values_out_of_range_are_refused(name: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be"):
        load_settings({name: value}, {"EVERWARM_HOME": str(tmp_path)})


def test_a_late_start_of_quantising_says_why_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one position .* two contents"):
        load_settings({"quantized_kv_start": 1}, {"EVERWARM_HOME": str(tmp_path)})


def test_each_warns_of_what_was_lost_in_the_published_experiment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "everwarm.engine"):
        arranged(EIGHT)
        arranged(WINDOW)
        arranged(Arrangement())
    quantised, window = (r.getMessage() for r in caplog.records)
    assert "16.5%" in quantised and "8 bits" in quantised
    assert "4 of 8" in window and "the last 20 tokens" in window


def test_without_a_wish_the_model_keeps_its_own() -> None:
    model = zoo.build("llama")[0]
    before = model.make_cache
    arrange(model, Arrangement.of(Settings()))
    assert model.make_cache == before


def test_only_the_attention_of_a_hybrid_is_quantised() -> None:
    model = arranged(EIGHT, "qwen3_5", text_config=zoo.config("qwen3_5")["text_config"] | WIDE)
    kinds = [type(c).__name__ for c in ModelState(model).caches]
    assert "QuantizedKVCache" in kinds and "ArraysCache" in kinds and "KVCache" not in kinds


@pytest.mark.parametrize(
    ("wanted", "rows"), [(EIGHT, 300), (FOUR, 300), (WINDOW, 300), (WINDOW, 10)]
)
def test_room_for_a_job_is_what_its_state_takes(wanted: Arrangement, rows: int) -> None:
    model = arranged(wanted)
    state = ModelState(model)
    state.read(tokens_of(words(0, rows)))
    state.settle()
    state.reserve()
    most = bytes_at(model, chunk=512)(rows)
    assert state.nbytes <= most
    if state.is_cuttable:
        assert most == state.nbytes, "no more than a state with the room that it keeps ahead"


def test_fewer_bits_take_fewer_bytes() -> None:
    whole, eight, four = (bytes_at(arranged(a), 512)(1000) for a in (Arrangement(), EIGHT, FOUR))
    assert whole > 3 * eight > 5 * four


@pytest.mark.parametrize("wanted", [EIGHT, FOUR], ids=["8", "4"])
def test_quantised_rows_are_cut_and_branched_like_others(wanted: Arrangement) -> None:
    model = arranged(wanted)
    warm, cold = (Cache(lambda: ModelState(model), budget=1 << 34, keep=k) for k in (True, False))
    history = words(0, 80) + turn(warm, words(0, 80)).reply
    for seed in (1, 2, 1):
        asked = history + words(seed, 40)
        done = turn(warm, asked, marks_of(asked))
        assert done.cached >= len(history)
        assert done.reply.agrees(turn(cold, asked).reply)


def test_a_window_answers_as_a_cold_one_and_forgets() -> None:
    model = arranged(WINDOW)
    warm, cold = (Cache(lambda: ModelState(model), budget=1 << 34, keep=k) for k in (True, False))
    history = words(0, 80) + turn(warm, words(0, 80)).reply
    for seed in (1, 2):
        asked = history + words(seed, 40)
        done = turn(warm, asked, marks_of(asked))
        assert done.cached == len(history)
        assert done.reply.agrees(turn(cold, asked).reply)
    state = ModelState(model)
    state.read(tokens_of(words(0, 200)))
    held = layers.snapshot(state.caches[0])
    assert held[0].shape[2] == 24


def windows_of_calls(make: Any) -> list[mx.array]:
    """The last token's logits, with the tokens read in calls of several sizes."""
    model = zoo.build("llama")[0]
    ids, out = words(3, 90), []
    for size in (7, 16, 90, 1):
        caches = [make() for _ in model.layers]
        for at in range(0, 90, size):
            logits = model(mx.array([ids[at : at + size]]), cache=caches)
            mx.eval(logits)
        out.append(logits[0, -1])
    return out


def apart(logits: list[mx.array]) -> float:
    return max(float(mx.abs(a - logits[0]).max()) for a in logits[1:])


def test_what_a_window_answers_does_not_depend_on_its_calls() -> None:
    assert apart(windows_of_calls(lambda: layers.SinkWindow(max_size=24, keep=4))) < 1e-4


def test_a_window_of_mlx_lm_depends_on_its_calls() -> None:
    """Where this fails, `layers.SinkWindow` can go: mlx-lm keeps the first rows in sight."""
    assert apart(windows_of_calls(lambda: RotatingKVCache(max_size=24, keep=4))) > 1e-2


def test_another_arrangement_is_another_model_on_disk(smollm2: Path, tmp_path: Path) -> None:
    path = zoo.save("llama", tmp_path / "llama", smollm2, **WIDE)
    prints = []
    wanted = [EIGHT, FOUR, Arrangement(8, 32), WINDOW, Arrangement(window=32), Arrangement()]
    for one in wanted:
        loaded = load_model(str(path), model_id=None, context_length=None)
        arrange(loaded.model, one)
        prints.append(fingerprint(loaded.model, loaded.config, path, tmp_path / "sums.json"))
    assert len(set(prints)) == len(wanted)
    plain = load_model(str(path), model_id=None, context_length=None)
    assert fingerprint(plain.model, plain.config, path, tmp_path / "s") == prints[-1]


class ShrinkingCache:
    """A cache of no known class that holds less the longer it gets."""

    def __init__(self) -> None:
        self.state = [mx.zeros((1, 1, 1000, 4))]

    def read(self, n: int) -> None:
        left = max(1, self.state[0].shape[-2] - n)
        self.state = [self.state[0][..., :left, :]]


class ShrinkingModel:
    """A model of one such layer."""

    def make_cache(self) -> list[ShrinkingCache]:
        return [ShrinkingCache()]

    def __call__(self, ids: mx.array, cache: list[ShrinkingCache]) -> mx.array:
        cache[0].read(ids.shape[1])
        return mx.zeros((1, ids.shape[1], 8))


def test_a_state_that_shrinks_is_counted_at_its_largest() -> None:
    most = bytes_at(ShrinkingModel(), 32)
    largest = 999 * 4 * 4  # behind the first token
    assert [most(n) for n in (1, 100, 10_000)] == [largest] * 3
