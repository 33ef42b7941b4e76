"""What an engine is made of: a loaded model, its cache, its part of the disk. No threads here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import mlx.core as mx

from everwarm.cache.admission import longest
from everwarm.cache.cache import Cache
from everwarm.cache.disk.files import Files
from everwarm.cache.disk.tier import DiskTier
from everwarm.config import Settings
from everwarm.engine.kv import Arrangement, arrange
from everwarm.engine.lane_trial import can_take_lanes
from everwarm.engine.machine_memory import default_budget, limit_mlx, machine_pressure
from everwarm.engine.memory_pressure import Pressure
from everwarm.engine.model import LoadedModel, TellLoaded, load_model, tell_nobody
from everwarm.engine.state import ModelState, bytes_at
from everwarm.engine.storage import open_tier
from everwarm.errors import ConfigError

STEP_ON_GPU: Final = 2048
STEP_ON_CPU: Final = 512
LEAST_CONTEXT: Final = 64
"""Fewer tokens than this are no conversation."""
log = logging.getLogger("everwarm.engine")


@dataclass(frozen=True, slots=True)
class EngineParts:
    """`step`: how many tokens a prefill reads at once where that is quick.

    `pressure`: asks the machine how short it is of memory. `takes_lanes`: several replies are
    decoded in one forward.
    """

    loaded: LoadedModel
    cache: Cache
    tier: DiskTier | None
    step: int
    pressure: Callable[[], Pressure] = machine_pressure
    takes_lanes: bool = False


def open_parts(
    path: str,
    s: Settings,
    wake: Callable[[], None],
    files: Files | None = None,
    progress: TellLoaded = tell_nobody,
) -> EngineParts:
    """Load a model and take up what was kept of it. Raises ConfigError.

    `wake` is called from other threads when the disk tier may go on. `files` as in `open_tier`,
    `progress` as in `load_model`.
    """
    wanted = Arrangement.of(s)
    limit_mlx(s)
    loaded = load_model(
        path, model_id=s.model_id, context_length=s.context_length, progress=progress
    )
    arrange(loaded.model, wanted)
    budget = s.memory_budget or default_budget()
    tier = open_tier(loaded, s, wake, files)
    on_gpu = mx.default_device() == mx.Device(mx.gpu)
    step = s.prefill_step or (STEP_ON_GPU if on_gpu else STEP_ON_CPU)
    room = bytes_at(loaded.model, step)
    loaded = _bounded(loaded, longest(room, budget, loaded.info.context_length), budget)
    takes_lanes = can_take_lanes(loaded.model)
    width = (s.decode_width or 0) if takes_lanes else None
    cache = Cache(
        lambda: ModelState(loaded.model, width=width),
        budget=budget,
        keep=s.cache,
        bytes_at=room,
        tier=tier,
    )
    return EngineParts(loaded, cache, tier, step, takes_lanes=takes_lanes)


def _bounded(loaded: LoadedModel, longest_rows: int, budget: int) -> LoadedModel:
    """The model with a context that fits the memory budget. Raises ConfigError for a tiny one."""
    if longest_rows >= loaded.info.context_length:
        return loaded
    fact = f"A memory_budget of {budget / 1e6:,.1f} MB holds {longest_rows:,} tokens of this model"
    if longest_rows < LEAST_CONTEXT:
        raise ConfigError(f"{fact}. Raise it, or choose a smaller model.")
    log.warning("context_length=%d: %s; raise it for longer conversations", longest_rows, fact)
    return replace(loaded, info=replace(loaded.info, context_length=longest_rows))
