"""The bare forward: what the model alone needs to read a suffix at a depth. The floor of a TTFT.

On a state of `depth` tokens the suffix less one token is read in one call (two more where a model
needs checkpoints, as everwarm cuts it), then the last token, and one is sampled. What a row of a
cuttable layer holds does not change what reading it costs, so a deep state is made by repeating the
rows of a short one; only caches of unknown classes are read to the depth in truth.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx

from everwarm.engine import layers
from everwarm.engine.state import ModelState
from everwarm.tokens import Tokens, tokens_of

CHUNK: Final = 512
SEED_TOKENS: Final = 1024
"""Read in truth before the rows are repeated, or twice the widest window where that is more."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The bare forward at one place. Seconds; `floor_s` is the median of the rounds."""

    depth: int
    suffix_tokens: int
    floor_s: float
    rounds_s: tuple[float, ...]


def measure(model: Any, depth: int, suffix: int, *, rounds: int = 5) -> Floor:
    """Time `rounds` readings of `suffix` tokens, one behind the other, behind `depth` tokens."""
    state = state_at(model, depth, room=(rounds + 1) * suffix)
    read_suffix(state, suffix)  # the first run of a shape pays for memory and threads
    times = tuple(read_suffix(state, suffix) for _ in range(rounds))
    return Floor(depth, suffix, statistics.median(times), times)


class Bare:
    """The bare forward, asked for one place after another. Live: one thread.

    A state is kept while the depths that are asked for stay near: readings go on behind it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._state: ModelState | None = None

    def read(self, depth: int, suffix: int) -> float:
        """The seconds of one reading of `suffix` tokens behind about `depth`."""
        state = self._state
        if state is None or abs(state.length - depth) > max(64, depth // 64):
            self._state = None  # given back before the next one is made
            state = self._state = state_at(self._model, depth, room=depth // 64 + 2 * suffix)
            read_suffix(state, suffix)
        return read_suffix(state, suffix)


def read_suffix(state: ModelState, n: int) -> float:
    """Read n tokens and sample one; the seconds it took."""
    ids = _ids(state.length, n)
    cuts = [n - 1] if state.is_cuttable else [min(2, n - 1), n - 3, n - 1]
    began = time.perf_counter()
    at = 0
    for cut in cuts:
        if cut > at:
            state.read(ids[at:cut])
            state.settle()
            at = cut
    logits = state.read(ids[at:])
    mx.eval(mx.argmax(logits[:, -1, :], axis=-1))
    return time.perf_counter() - began


def state_at(model: Any, depth: int, *, room: int) -> ModelState:
    """A state of `depth` tokens with room for more, as a server's own is when a hit arrives."""
    state = ModelState(model)
    leaves = layers.leaves(state.caches)
    windows = [c.max_size for c in leaves if layers.kind(c) == "windowed"]
    unknown = any(layers.kind(c) == "unknown" for c in leaves)
    seed = depth if unknown else min(depth, max([SEED_TOKENS, *(2 * w for w in windows)]))
    for at in range(0, seed, CHUNK):
        state.read(_ids(at, min(CHUNK, seed - at)))
        state.settle()
    for c in leaves:
        if layers.kind(c) == "cuttable":
            _repeat_rows(c, seed, depth)
            layers.grow(c, depth + room + 256)
        elif layers.kind(c) == "windowed":
            c.offset = depth
    state.length = depth
    return state


def _repeat_rows(c: Any, have: int, rows: int) -> None:
    """Make a cuttable cache that holds `have` rows hold `rows`."""

    def longer(a: mx.array) -> mx.array:
        part = a[..., :have, :]
        whole, rest = divmod(rows, have)
        return mx.concatenate([*[part] * whole, part[..., :rest, :]], axis=-2)

    c.keys, c.values = layers.map_rows(longer, c)
    c.offset = rows
    mx.eval(c.keys, c.values)


def _ids(start: int, n: int) -> Tokens[int]:
    """Common ids: any vocabulary has the first few thousand."""
    return tokens_of(10 + (start + i) * 7919 % 2003 for i in range(n))
