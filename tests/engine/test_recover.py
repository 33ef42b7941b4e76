"""A fault in the middle of a forward pass costs that job, never what was read before it."""

from __future__ import annotations

from typing import Any

import pytest
import zoo
from turn_requests import CUTTABLE, OTHERS, NoText, marks_of, turn, words

from everwarm.cache.cache import Cache
from everwarm.engine.job_run import JobRun
from everwarm.engine.state import ModelState
from everwarm.job import Job
from everwarm.request import Sampling
from everwarm.tokens import Mark, tokens_of


class Fuse:
    """The model's last layer, which fails at a chosen call: the layers before it have read on."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.calls_left = 1 << 30

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise RuntimeError("the fuse blew")
        return self._layer(*args, **kwargs)


def fused(family: str) -> tuple[Any, Fuse]:
    model: Any = zoo.build(family)[0]
    inner = getattr(model, "language_model", model)
    layers = getattr(inner, "model", None) or inner.backbone
    layers = layers.layers
    fuse = Fuse(layers[-1])
    layers[-1] = fuse
    return model, fuse


def fails(cache: Cache, tokens: list[int], marks: list[Mark]) -> None:
    run = JobRun(
        Job("j", tokens_of(tokens), tuple(marks), Sampling(), 6), cache, NoText(), _none, 32
    )  # type: ignore[arg-type]
    assert run.try_lease()
    with pytest.raises(RuntimeError, match="fuse"):
        for _ in run.steps():
            pass


def _none(_: object) -> None:
    pass


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
@pytest.mark.parametrize("calls", [1, 3])  # in the first chunk, in a later one
def test_a_failed_turn_goes_back_to_where_it_began(family: str, calls: int) -> None:
    model, fuse = fused(family)
    warm = Cache(lambda: ModelState(model), budget=1 << 34)
    cold = Cache(lambda: ModelState(model), budget=1 << 34, keep=False)
    first = words(0, 100)
    reply = turn(warm, first, marks_of(first)).reply
    second = first + reply + words(1, 90)
    fuse.calls_left = calls
    fails(warm, second, marks_of(second))
    again = turn(warm, second, marks_of(second))
    assert again.cached == len(first + reply)
    assert again.reply.agrees(turn(cold, second).reply)


def test_a_first_turn_that_fails_leaves_nothing_busy() -> None:
    model, fuse = fused("llama")
    warm = Cache(lambda: ModelState(model), budget=1 << 34)
    fuse.calls_left = 2
    fails(warm, words(0, 100), [])
    assert warm.stats()["states"] == 0
    assert turn(warm, words(0, 100)).prefilled == 100
