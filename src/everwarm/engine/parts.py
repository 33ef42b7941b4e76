"""What an engine is made of: a loaded model, its cache, its part of the disk. No threads here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import mlx.core as mx

from everwarm.cache.cache import Cache
from everwarm.cache.tier import DiskTier
from everwarm.config import Settings
from everwarm.engine.kv import Arrangement, arrange
from everwarm.engine.memory import default_budget
from everwarm.engine.model import LoadedModel, load_model
from everwarm.engine.state import State, bytes_at
from everwarm.engine.storage import open_tier

STEP_ON_GPU: Final = 2048
STEP_ON_CPU: Final = 512


@dataclass(frozen=True, slots=True)
class Parts:
    """`step`: how many tokens a prefill reads at once where that is quick."""

    loaded: LoadedModel
    cache: Cache
    tier: DiskTier | None
    step: int


def open_parts(path: str, s: Settings, wake: Callable[[], None]) -> Parts:
    """Load a model and take up what was kept of it. Raises ConfigError.

    `wake` is called from other threads when the disk tier may go on.
    """
    wanted = Arrangement.of(s)
    loaded = load_model(path, model_id=s.model_id, context_length=s.context_length)
    arrange(loaded.model, wanted)
    budget = s.memory_budget or default_budget()
    tier = open_tier(loaded, s, wake)
    on_gpu = mx.default_device() == mx.Device(mx.gpu)
    step = s.prefill_step or (STEP_ON_GPU if on_gpu else STEP_ON_CPU)
    cache = Cache(
        lambda: State(loaded.model),
        budget=budget,
        keep=s.cache,
        bytes_at=bytes_at(loaded.model, step),
        tier=tier,
    )
    return Parts(loaded, cache, tier, step)
