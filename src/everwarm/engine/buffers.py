"""How many arrays the cache holds: on Metal each is a buffer, and those are counted, too.

Metal's "Resource limit (499000) exceeded" is about the number of buffers of a process, in use or
kept by MLX for later, not about their bytes. Engine thread only.
"""

from __future__ import annotations

from typing import Any

from everwarm.cache.memory import Memory
from everwarm.engine import layers


def n_arrays(memory: Memory) -> int:
    """The arrays of all states and pieces, each once. Walks the tree."""
    states: list[Any] = [h.sequence.live for h in memory.states]
    found = {id(a): a for state in states for a in layers.arrays(state.caches)}
    for piece in memory.pieces():
        found |= {id(a): a for a in layers.arrays(piece)}
    return len(found)
