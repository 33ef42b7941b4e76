"""Sampling with any parameters that can be written down: finite, and a token that may be drawn."""

from __future__ import annotations

import everwarm.engine  # isort: skip  # noqa: F401  (chooses the BLAS before mlx)
import math
from typing import Any

import mlx.core as mx
import pytest

from everwarm.engine.sampling import Sampler
from everwarm.request import Sampling
from everwarm.tokens import tokens_of

LOGITS = [1.0, 5.0, 3.0, -2.0, 0.5, 4.9]
TINY = [5e-324, 1e-310, 1e-45, 1e-39, 1e-30, 1e-12]
HUGE = [1e12, 1e30, 1e39, 1e308]


def drawn(
    n: int = 8, dtype: mx.Dtype = mx.float32, mask: list[bool] | None = None, **parameters: Any
) -> list[int]:
    """Tokens drawn one after the other from the same logits; their log-probabilities are finite."""
    sampler = Sampler(Sampling(seed=3, **parameters), tokens_of([0, 1, 1, 2]))
    out = []
    for _ in range(n):
        may = None if mask is None else mx.array(mask)
        token, logprobs = sampler(mx.array([[LOGITS]]).astype(dtype), may)
        value: Any = token.item()
        said: Any = logprobs[token].item()
        assert math.isfinite(said)
        out.append(int(value))
    return out


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("temperature", TINY)
def test_a_tiny_temperature_is_greedy(temperature: float, dtype: mx.Dtype) -> None:
    assert drawn(temperature=temperature, dtype=dtype) == [1] * 8


@pytest.mark.parametrize("temperature", [1e-6, 1e-4])
def test_a_small_temperature_is_as_good_as_greedy(temperature: float) -> None:
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        assert drawn(temperature=temperature, dtype=dtype) == [1] * 8


@pytest.mark.parametrize("top_p", [0.0, *TINY])
def test_a_tiny_nucleus_is_the_likeliest_token(top_p: float) -> None:
    assert drawn(temperature=1.0, top_p=top_p) == [1] * 8


@pytest.mark.parametrize("min_p", TINY)
def test_a_tiny_least_share_keeps_every_token(min_p: float) -> None:
    assert drawn(64, temperature=1.0, min_p=min_p) == drawn(64, temperature=1.0)


@pytest.mark.parametrize("min_p", [1 - 1e-16, 1.0])
def test_a_least_share_of_all_is_greedy(min_p: float) -> None:
    assert drawn(temperature=1.0, min_p=min_p) == [1] * 8


@pytest.mark.parametrize("value", [*TINY, *HUGE])
@pytest.mark.parametrize("name", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_a_penalty_of_any_size_leaves_something_to_draw(name: str, value: float) -> None:
    for temperature in (0.0, 1.0):
        for sign in (1, -1) if name != "repetition_penalty" else (1,):
            assert set(drawn(temperature=temperature, **{name: sign * value})) <= set(range(6))


def test_a_huge_penalty_on_what_was_seen_leaves_what_was_not() -> None:
    assert drawn(1, repetition_penalty=1e308) == [5]


@pytest.mark.parametrize("value", [*HUGE, float("inf")])
def test_a_bias_of_any_size_chooses_or_forbids(value: float) -> None:
    for temperature in (0.0, 1.0):
        assert drawn(temperature=temperature, logit_bias={3: value}) == [3] * 8
        forbidden = {1: -value, 5: -value, 2: -value}
        assert not set(drawn(64, temperature=temperature, logit_bias=forbidden)) & {1, 2, 5}


def test_a_grammar_is_kept_where_a_bias_forbids_all_that_it_allows() -> None:
    mask = [False, True, False, False, False, False]
    for temperature in (0.0, 1.0):
        assert (
            drawn(mask=mask, temperature=temperature, logit_bias={1: -math.inf, 2: 100.0})
            == [1] * 8
        )


@pytest.mark.parametrize("temperature", HUGE)
def test_a_huge_temperature_still_draws_what_may_be_drawn(temperature: float) -> None:
    assert set(drawn(64, temperature=temperature, top_k=2)) <= {1, 5}
