"""Layer kinds of mlx-lm's caches: cuttable, windowed, opaque. The only place that knows classes.

- cuttable (KVCache, QuantizedKVCache): rows of any prefix can be taken; `trim` is exact.
- windowed (RotatingKVCache, SinkWindow): exact only near its end; rests as at most `max_size` rows.
- opaque (ArraysCache): replaced as a whole at each call; its arrays may be held by reference.
- unknown classes count as opaque and are held by `deepcopy`, which shares until written.

A CacheList is flattened into its members, so a list is as cuttable as its parts.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)

LayerKind = Literal["cuttable", "windowed", "opaque", "unknown"]


class SinkWindow(RotatingKVCache):
    """A window whose first `keep` rows stay in sight, however its tokens are cut into calls.

    mlx-lm's own mask hides them from all but the first `keep` tokens of a call, so that what a
    position holds depends on where calls began. Remove with
    `tests/engine/test_kv.py::test_a_window_of_mlx_lm_depends_on_its_calls`.

        rows   [ keep ][ max_size - keep - 1 before the call ][ the call's own ]
        query  [ seen ]      [ the last max_size - keep, itself the last ]
    """

    def __init__(self, max_size: int, keep: int) -> None:
        super().__init__(max_size=max_size, keep=keep)  # type: ignore[no-untyped-call]

    def make_mask(
        self, N: int, window_size: int | None = None, return_array: bool = False
    ) -> mx.array | str | None:
        assert window_size is None, "a layer with a window of its own"
        if N == 1:
            return None
        before = min(self.max_size - 1, self.offset)
        if before + N <= self.max_size and not return_array:
            return "causal"
        rows, own = mx.arange(before + N)[None], mx.arange(before, before + N)[:, None]
        near = rows > own - (self.max_size - self.keep)
        mask: mx.array = (rows <= own) & (near | (rows < self.keep))
        return mask


def leaves(caches: list[Any]) -> list[Any]:
    """The member caches of a prompt cache, lists flattened."""
    out: list[Any] = []
    for c in caches:
        out.extend(leaves(list(c.caches)) if type(c) is CacheList else [c])
    return out


def kind(c: Any) -> LayerKind:
    """By exact class: a subclass may keep its rows otherwise."""
    if type(c) in (KVCache, QuantizedKVCache):
        return "cuttable"
    if type(c) in (RotatingKVCache, SinkWindow):
        return "windowed"
    return "opaque" if type(c) is ArraysCache else "unknown"


def map_rows(fn: Any, c: Any) -> Any:
    """Apply `fn` to every array of a cuttable cache's (keys, values); rows are axis -2."""
    return tree_map(fn, (c.keys, c.values))


def capacity(c: Any) -> int:
    """Rows that a cuttable cache has room for."""
    if c.keys is None:
        return 0
    first = c.keys[0] if isinstance(c.keys, (tuple, list)) else c.keys
    return int(first.shape[-2])


def rows(c: Any, start: int, end: int) -> Any:
    """Rows [start, end) of a cuttable cache, not copied: they hold until its next step."""
    return map_rows(lambda a: a[..., start:end, :], c)


def grow(c: Any, rows: int) -> None:
    """Give a cuttable cache room for `rows` rows; moves its bytes once."""
    have = capacity(c)
    if c.keys is None or rows <= have:
        return

    def wider(a: mx.array) -> mx.array:
        pad = mx.zeros((*a.shape[:-2], rows - have, a.shape[-1]), dtype=a.dtype)
        return mx.concatenate([a, pad], axis=-2)

    c.keys, c.values = map_rows(wider, c)
    mx.eval(c.keys, c.values)


def snapshot(c: Any) -> Any:
    """What a cache that is not cuttable holds now. Ring order is kept.

    Arrays are not copied, which has to be done before the next step: rings are written in place.
    """
    match kind(c):
        case "opaque":
            return list(c.cache)
        case "windowed":
            return _window(c)
        case _:
            return copy.deepcopy(c)


def _window(c: Any) -> tuple[Any, Any, int, int]:
    """(keys, values, offset, _idx), trimmed to max_size rows exactly as the next step would."""
    if c.keys is None:
        return None, None, c.offset, c._idx
    rows = c.keys.shape[2]
    over = rows - c.max_size
    idx = c._idx
    keys, values = c.keys, c.values
    if over > 0:
        keys, values, idx = c._trim(over, keys), c._trim(over, values), c.max_size
    elif c.offset < rows:
        keys, values = keys[..., : c.offset, :], values[..., : c.offset, :]
    return keys, values, c.offset, idx


def put_back(c: Any, held: Any) -> Any:
    """Set a cache to a snapshot; gives back the cache to use from now on."""
    match kind(c):
        case "opaque":
            c.cache = list(held)
        case "windowed":
            keys, values, c.offset, c._idx = held
            c.keys = None if keys is None else mx.array(keys)
            c.values = None if values is None else mx.array(values)
        case _:
            fresh = copy.deepcopy(held)
            c.__dict__.clear()
            c.__dict__.update(fresh.__dict__)
    return c


def arrays(x: Any) -> list[mx.array]:
    """All arrays inside a cache, a snapshot or rows of one."""
    if isinstance(x, mx.array):
        return [x]
    if isinstance(x, (list, tuple)):
        return [a for item in x for a in arrays(item)]
    if isinstance(x, dict):
        return arrays(list(x.values()))
    if x is None or isinstance(x, (int, float, bool, str)):
        return []
    return arrays(x.__dict__)


def row_nbytes(c: Any) -> int:
    """Bytes of one row of a cache that keeps rows; 0 before it has any."""
    return int(sum(a.nbytes // a.shape[-2] for a in arrays([c.keys, c.values])))


def bytes_at(c: Any, rows: int, chunk: int) -> int:
    """The most bytes of a cache with room for `rows` tokens, from what it holds of the first.

    A window holds the rows of a whole call beside its own until the next call.
    """
    match kind(c):
        case "cuttable":
            return row_nbytes(c) * rows
        case "windowed":
            return row_nbytes(c) * min(rows, int(c.max_size) + chunk)
        case _:
            return sum(a.nbytes for a in arrays(c))


def hold(c: Any) -> Any:
    """What `undo` will need after one more single-token step. Costs nothing."""
    return list(c.cache) if kind(c) == "opaque" else None


def undo(c: Any, held: Any) -> None:
    """Take the last single-token step back; exact for rings too, also after a wrap."""
    match kind(c):
        case "cuttable":
            c.trim(1)
        case "windowed":
            c.offset -= 1
            c._idx -= 1
        case _:
            c.cache = held
