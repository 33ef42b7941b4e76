"""The same random histories with real tiny models: every warm reply is the cold one.

Two replies agree up to a tie, which rounding decides (`turns.Reply`). `EVERWARM_MACHINE_STEPS` says
how many steps; all families of the zoo take part.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import zoo  # isort: skip  (chooses the BLAS before mlx)
from conversations import CALLS, Job, explore
from engine_conversations import Codec, OnTheEngine
from turn_requests import Reply, turn

from everwarm.cache.cache import Cache
from everwarm.engine.lane_trial import can_take_lanes
from everwarm.engine.state import ModelState, bytes_at
from everwarm.testing import VOCABULARY, Trap

STEPS = int(os.environ.get("EVERWARM_MACHINE_STEPS", 20_000)) // 50
CHUNK = 64


@functools.lru_cache(maxsize=8)
def model_of(family: str) -> Any:
    config = zoo.small(family)
    config["vocab_size"] = VOCABULARY
    for own in (config, config.get("text_config", {})):
        own.update({name: VOCABULARY for name in own if "vocab_size" in name})
    return zoo.make(config)


@functools.lru_cache(maxsize=64)
def width_of(family: str) -> int | None:
    return 0 if can_take_lanes(model_of(family)) else None


@functools.lru_cache(maxsize=8)
def _room(family: str) -> Callable[[int], int]:
    return bytes_at(model_of(family), CHUNK)


def _trapped(name: str) -> Callable[..., Any]:
    """A state's call that may fail: a read behind it, with layers uneven, others before it."""

    def call(self: Any, *args: Any) -> Any:
        if name != "read":
            self.trap(name)
        out = getattr(ModelState, name)(self, *args)
        if name == "read":
            self.trap(name)
        if isinstance(out, ModelState):
            out.trap = self.trap  # type: ignore[attr-defined]
        return out

    return call


class Trapped(ModelState):
    """A real state whose calls a test may break."""

    def __init__(self, model: Any, *, width: int | None = None) -> None:
        super().__init__(model, width=width)
        self.trap = Trap()

    @staticmethod
    def read_together(states: Sequence[Any], tokens: Sequence[Any]) -> list[Any]:
        out = ModelState.read_together(states, tokens)
        for s in states:
            s.trap("read")
        return out


for _name in set(CALLS):
    setattr(Trapped, _name, _trapped(_name))


class OnRealModels(OnTheEngine):
    """Clients of real models behind the engine's loop."""

    families = zoo.FAMILIES

    def layers_of(self, family: str) -> str:
        return family

    def new_state(self, model: int) -> Any:
        family = self.layers[model]
        made = Trapped(model_of(family), width=width_of(family))
        made.trap = self.traps[model]
        self.states[model].add(made)
        return made

    def room_of(self, model: int) -> Callable[[int], int]:
        return _room(self.layers[model])

    def is_right(self, job: Job, n: int) -> bool:
        family: Any = job.layers
        said = cold(family, tuple(job.run.tokens))
        cut = Reply(said[:n])
        cut.leads = said.leads[:n]
        return Reply(job.run.reply).agrees(cut)


@functools.lru_cache(maxsize=512)
def cold(family: str, tokens: tuple[int, ...]) -> Reply:
    cache = Cache(lambda: ModelState(model_of(family)), budget=1 << 40, keep=False)
    return turn(cache, list(tokens), max_tokens=9, codec=Codec()).reply


def test_warm_replies_of_real_models_are_cold_replies_whatever_happens() -> None:
    assert explore(OnRealModels, STEPS, examples=10)["together"]
