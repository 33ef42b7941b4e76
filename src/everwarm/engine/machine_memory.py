"""How much memory the engine may count on, where no setting says it."""

from __future__ import annotations

import logging
from typing import Final

import mlx.core as mx

from everwarm.config import Settings
from everwarm.engine.memory_pressure import Pressure, free_bytes, read_pressure

SHARE: Final = 0.7
"""Of what is free once the weights are loaded: activations and others need some, too."""
LEAST_BYTES: Final = 1 << 28
UNKNOWN_BYTES: Final = 4 << 30
CACHE_SHARE: Final = 16
MOST_CACHE_BYTES: Final = 4 << 30
"""Freed buffers that MLX keeps count as much as used ones: against the machine's memory, and
against the number that Metal allows a process. One step's buffers should find room."""
log = logging.getLogger("everwarm.engine")


def default_budget() -> int:
    """Bytes for states and pieces, from what is free now."""
    return int(SHARE * _free_bytes())


def limit_mlx(s: Settings) -> None:
    """Set what MLX may keep for itself, before weights are loaded. Elsewhere than on Metal only
    what a person has set, and what has no effect there is said."""
    if mx.metal.is_available():
        recommended = int(mx.device_info()["max_recommended_working_set_size"])
        mx.set_cache_limit(s.mlx_cache_limit or min(recommended // CACHE_SHARE, MOST_CACHE_BYTES))
        if s.wired_limit is not None:
            mx.set_wired_limit(min(s.wired_limit, recommended))
        return
    if s.mlx_cache_limit is not None:
        mx.set_cache_limit(s.mlx_cache_limit)
    if s.wired_limit is not None:
        log.warning("wired_limit=%d has no effect: there is no Metal here", s.wired_limit)


def machine_pressure() -> Pressure:
    """Whether the memory that holds the states runs short. With CUDA that is not the host's."""
    return Pressure() if mx.cuda.is_available() else read_pressure()


def _free_bytes() -> int:
    """Free memory of the device that holds the states: with CUDA that is not the host's."""
    if mx.metal.is_available():
        total = int(mx.device_info()["max_recommended_working_set_size"])
        return max(total - mx.get_active_memory(), LEAST_BYTES)
    if mx.cuda.is_available():
        return _free_cuda_bytes(dict(mx.device_info(mx.Device(mx.gpu))))
    return _available_bytes()


def _free_cuda_bytes(info: dict[str, str | int]) -> int:
    """From what MLX says of the device. What it has freed it keeps, so that it is ours again."""
    if "free_memory" in info:
        return max(int(info["free_memory"]) + mx.get_cache_memory(), LEAST_BYTES)
    total = int(info.get("total_memory", 0)) or mx.get_memory_limit()
    return max(total - mx.get_active_memory(), LEAST_BYTES)


def _available_bytes() -> int:
    """What Linux says could be had without swapping, within the limits of control groups."""
    free = free_bytes()
    return UNKNOWN_BYTES if free is None else max(free, LEAST_BYTES)
