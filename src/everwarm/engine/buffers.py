"""How many buffers the cache holds: Metal counts them, not only their bytes.

Metal's "Resource limit (499000) exceeded" is about the number of buffers of a process, in use or
kept by MLX for later, not about their bytes. Engine thread only.
"""

from __future__ import annotations

from typing import Any

from everwarm.cache.memory import Memory
from everwarm.engine import layers


def n_buffers(memory: Memory) -> int:
    """The buffers of all states and pieces. Walks the tree."""
    states: list[Any] = [h.sequence.live for h in memory.states]
    pieces: list[Any] = memory.pieces()
    n: int = sum(p.n_buffers for p in pieces)
    return n + sum(len(layers.arrays(s.caches)) for s in states)
