"""With one width a reply has the same bits in any company, whatever BLAS there is."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import zoo

import mlx.core as mx  # isort: skip

from everwarm.engine.lane_trial import can_take_lanes
from everwarm.engine.state import ModelState
from everwarm.tokens import tokens_of

WIDTH, STEPS = 4, 24


def begun(model: Any, prompt: list[int], width: int) -> tuple[ModelState, mx.array]:
    state = ModelState(model, width=width)
    return state, mx.argmax(state.read(tokens_of(prompt))[:, -1], axis=-1)


def alone(model: Any, prompt: list[int], n: int, width: int) -> list[mx.array]:
    state, token = begun(model, prompt, width)
    out = []
    for _ in range(n):
        out.append(ModelState.read_together([state], [token])[0])
        token = mx.argmax(out[-1][:, -1], axis=-1)
    return out


def off(model: Any, width: int) -> int:
    """Rows that differ from those of the lane alone, in a company that comes and goes."""
    random, running = Random(3), list[Any]()
    different = 0
    for step in range(STEPS):
        if step % 3 == 0:
            prompt = [random.randrange(400) for _ in range(random.choice([3, 20, 33]))]
            state, token = begun(model, prompt, width)
            running.append([state, token, iter(alone(model, prompt, STEPS, width))])
        random.shuffle(running)
        del running[6:]
        read = ModelState.read_together([r[0] for r in running], [r[1] for r in running])
        for r, logits in zip(running, read, strict=True):
            different += not mx.array_equal(logits, next(r[2]))
            r[1] = mx.argmax(logits[:, -1], axis=-1)
    return different


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_at_one_width_no_bit_depends_on_the_company(family: str) -> None:
    model = zoo.make(zoo.small(family))
    if can_take_lanes(model):
        assert off(model, WIDTH) == 0


def test_without_one_the_company_shows() -> None:
    """Else this test would see nothing: this BLAS sums otherwise for another number of rows."""
    assert off(zoo.make(zoo.small("llama")), 0) > 0
