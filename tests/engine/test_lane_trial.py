"""Which families take lanes is found out when they are loaded, and docs/lanes.md says it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import zoo

import mlx.core as mx  # isort: skip

from everwarm.engine.lane_attention import attend_by_lane, of_one_query
from everwarm.engine.lane_trial import can_take_lanes
from everwarm.engine.lanes import Company
from everwarm.engine.state import ModelState

PAGE = Path(__file__).parents[2] / "docs/lanes.md"


def test_the_page_says_which_families_take_lanes() -> None:
    told = dict(re.findall(r"^\| (\w+) \| (together|one at a time) \|$", PAGE.read_text(), re.M))
    found = {
        f: "together" if can_take_lanes(zoo.make(zoo.small(f))) else "one at a time"
        for f in zoo.FAMILIES
    }
    assert told == found


def test_a_model_whose_lanes_would_differ_takes_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A planted fault: each lane is given its neighbour's rows."""
    read = Company.read

    def crossed(self: Company, states: Any, tokens: Any) -> Any:
        return read(self, states, tokens)[::-1]

    monkeypatch.setattr(Company, "read", crossed)
    assert not can_take_lanes(zoo.make(zoo.small("llama")))
    assert "off by" in caplog.text


def test_a_model_that_cannot_says_why(caplog: pytest.LogCaptureFixture) -> None:
    assert not can_take_lanes(zoo.make(zoo.small("llama4_text")))
    assert "maybe_trim_front" in caplog.text


def test_attention_of_everybody_else_is_mlxs_own() -> None:
    attend_by_lane()
    attend_by_lane()
    q, k, v = (mx.random.normal((1, 2, 3, 8)) for _ in range(3))
    found = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask="causal")
    scores = mx.where(mx.tri(3, 3) > 0, 0.3 * q @ k.swapaxes(-1, -2), -mx.inf)
    assert mx.allclose(found, mx.softmax(scores, axis=-1) @ v, atol=1e-5)


def test_states_of_a_model_without_lanes_read_one_by_one() -> None:
    model = zoo.make(zoo.small("llama"))
    states = [ModelState(model) for _ in range(2)]
    for s in states:
        s.read([1, 2, 3])  # type: ignore[arg-type]
    assert not any(s.may_join for s in states)
    one, two = ModelState.read_together(states, [mx.array([4]), mx.array([4])])
    assert mx.array_equal(one, two) and [s.length for s in states] == [4, 4]


@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (8, 1), (4, 4)])
@pytest.mark.parametrize("length", [1, 3])
def test_heads_that_share_keys_see_what_each_sees_alone(
    heads: int, groups: int, length: int
) -> None:
    """MLX's own function: fails where it orders heads otherwise."""
    plain = mx.fast.scaled_dot_product_attention
    q = mx.random.normal((2, heads, length, 16))
    k, v = (mx.random.normal((2, groups, 70, 16)) for _ in range(2))
    whole = of_one_query(plain)(q, k, v, scale=0.25)
    for h in range(heads):
        g = h // (heads // groups)
        own = plain(q[:, h : h + 1], k[:, g : g + 1], v[:, g : g + 1], scale=0.25)
        assert mx.allclose(whole[:, h : h + 1], own, atol=1e-5)
