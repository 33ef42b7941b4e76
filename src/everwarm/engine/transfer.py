"""Bytes of layers, out of MLX and back: what the disk tier writes and reads. Engine thread only.

Buffers leave as numpy arrays of their own, so that nothing written later can reach them, and no
view of a live buffer is held (the next step would copy the whole of it). They come back either
straight into a live state's rows or as arrays of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import mlx.core as mx
import numpy as np

from everwarm.cache.disk.blob import Array, Layer, StoredValue
from everwarm.cache.store import Bytes
from everwarm.engine import layers

_NAMES: Final[dict[Any, str]] = {
    mx.bool_: "BOOL", mx.uint8: "U8", mx.int8: "I8", mx.uint16: "U16", mx.int16: "I16",
    mx.uint32: "U32", mx.int32: "I32", mx.uint64: "U64", mx.int64: "I64",
    mx.float16: "F16", mx.bfloat16: "BF16", mx.float32: "F32",
}  # fmt: skip
_NUMPY: Final[dict[str, Any]] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16,
    "U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64,
    "F16": np.float16, "BF16": np.uint16, "F32": np.float32,
}  # fmt: skip
_MLX: Final[dict[str, Any]] = {name: dtype for dtype, name in _NAMES.items()}


def rows_out(cuttable: Sequence[Any], start: int, end: int) -> Bytes:
    """Rows [start, end) of cuttable layers."""
    return held_rows_out([layers.map_rows(lambda a: a, c) for c in cuttable], start, end)


def held_rows_out(rows: Sequence[Any], start: int, end: int) -> Bytes:
    """Rows [start, end) of what cuttable layers hold, or held: arrays with rows as axis -2."""
    buffers: list[Any] = []

    def take(a: mx.array) -> Array:
        return _put(np.array(_view(a)[..., start:end, :], order="C"), a, buffers)

    held = [_part(take, of_layer) for of_layer in rows]
    return tuple(Layer("cuttable", end - start, h) for h in held), buffers


def checkpoint_out(held: Sequence[Any], others: Sequence[Any], length: int) -> Bytes | None:
    """A checkpoint's layers; None where one is of a class that cannot be written down."""
    kinds = [layers.kind(c) for c in others]
    if "unknown" in kinds:
        return None
    buffers: list[Any] = []

    def take(a: mx.array) -> Array:
        return _put(np.array(_view(a), order="C"), a, buffers)

    parts = [_part(take, tuple(h)) for h in held]
    return tuple(Layer(k, length, p) for k, p in zip(kinds, parts, strict=True)), buffers


def checkpoint_in(held: Sequence[Layer], buffers: Sequence[Any]) -> list[Any]:
    """A checkpoint's arrays, as `layers.put_back` takes them."""
    left = iter(buffers)
    return [_value(p, left) for p in (layer.parts for layer in held)]


def rows_in(
    cuttable: Sequence[Any],
    held: Sequence[Layer],
    buffers: Sequence[Any],
    rows: tuple[int, int],
    piece_start: int,
    room: int,
) -> None:
    """Write rows [start, end) of a piece that begins at `piece_start` where they belong.

    A cache that has no buffers gets them, with `room` rows.
    """
    left = iter(buffers)
    for c, layer in zip(cuttable, held, strict=True):
        specs = [a for p in layer.parts for a in (p if isinstance(p, tuple) else (p,))]
        if c.keys is None:
            made = [_empty(s, room) for s in specs]
            half = len(made) // 2
            pair = (made[0], made[1]) if half == 1 else (made[:half], made[half:])
            c.keys, c.values = pair
        elif layers.capacity(c) < room:
            layers.grow(c, room)
        lo, hi = rows[0] - piece_start, rows[1] - piece_start
        for into, spec in zip(layers.arrays([c.keys, c.values]), specs, strict=True):
            assert isinstance(spec, Array)
            source = np.frombuffer(next(left), _NUMPY[spec.dtype]).reshape(spec.shape)
            _view(into)[..., rows[0] : rows[1], :] = source[..., lo:hi, :]
        c.offset = rows[1]


def _empty(spec: Any, room: int) -> mx.array:
    made = mx.zeros((*spec.shape[:-2], room, spec.shape[-1]), dtype=_MLX[spec.dtype])
    mx.eval(made)
    return made


def _view(a: mx.array) -> Any:
    """An array's own memory. To be dropped before the next step."""
    mx.eval(a)
    return np.array(a.view(mx.uint16) if a.dtype == mx.bfloat16 else a, copy=False)


def _put(copied: Any, a: mx.array, buffers: list[Any]) -> Array:
    buffers.append(copied)
    return Array(_NAMES[a.dtype], tuple(copied.shape))


def _part(take: Any, value: Any) -> Any:
    if isinstance(value, mx.array):
        return take(value)
    if isinstance(value, (list, tuple)):
        return tuple(_part(take, v) for v in value)
    return value


def _value(part: StoredValue, left: Iterator[Any]) -> Any:
    if isinstance(part, tuple):
        return [_value(p, left) for p in part]
    if not isinstance(part, Array):
        return part
    made = mx.array(np.frombuffer(next(left), _NUMPY[part.dtype]).reshape(part.shape))
    return made.view(mx.bfloat16) if part.dtype == "BF16" else made
