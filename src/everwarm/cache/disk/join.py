"""Small segments of one path as one. Pure: buffers in, a buffer out; no files.

Each short turn leaves a small file. When nothing runs, those of one cell are read and written again
as one, and the small ones are deleted once nobody can be reading them:

    join:           a, b, c read -> abc written as any piece is -> abc takes their place in the tree
    delete_doubles: a, b, c deleted before the next join, or at the next start

So a stop at any moment leaves rows twice and never less than once. Rows are joined only once: when
their run has come to the end of its cell, to a branch, or to the most bytes that one file takes.
Rows of 30 layers then come back from the disk 1.6 to 1.8 times as fast (docs/lab.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from everwarm.cache.disk.blob import Array, Layer, PieceRecord, StoredValue
from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.reader import Loaded
from everwarm.tokens import tokens_of


@dataclass(frozen=True, slots=True)
class Joined:
    """A new piece, and those whose rows it holds."""

    stored: Stored
    parts: frozenset[str]


def join(parts: Sequence[Loaded]) -> tuple[PieceRecord, tuple[Layer, ...], list[memoryview]]:
    """Neighbouring segments, first to last, as one. ValueError: they do not fit one another."""
    records = [b.record for b, _ in parts]
    for a, b in pairwise(records):
        if (a.position, a.end, b.kind) != (b.parent, b.start, "segment"):
            raise ValueError("not neighbours")
    buffers = [iter(held) for _, held in parts]
    out: list[memoryview] = []
    layers = tuple(
        _layer(same, buffers, out) for same in zip(*(b.layers for b, _ in parts), strict=True)
    )
    first, last = records[0], records[-1]
    tokens = tokens_of(t for r in records for t in r.tokens)
    record = PieceRecord(
        "segment", first.fingerprint, first.namespace, first.parent, last.position,
        first.start, last.end, tokens, last.mark,
    )  # fmt: skip
    return record, layers, out


def _layer(same: Sequence[Layer], buffers: Sequence[Iterator[Any]], out: list[memoryview]) -> Layer:
    if len({x.kind for x in same}) > 1:
        raise ValueError("layers of several kinds")
    held = _part([x.parts for x in same], buffers, out)
    assert isinstance(held, tuple)
    return Layer(same[0].kind, sum(x.length for x in same), held)


def _part(
    same: Sequence[StoredValue], buffers: Sequence[Iterator[Any]], out: list[memoryview]
) -> StoredValue:
    first = same[0]
    if all(isinstance(p, tuple) for p in same):
        return tuple(_part(p, buffers, out) for p in zip(*same, strict=True))
    if all(isinstance(p, Array) for p in same):
        return _rows(same, [next(b) for b in buffers], out)  # type: ignore[arg-type]
    if any(type(p) is not type(first) or p != first for p in same):
        raise ValueError("parts of several values")
    return first


def _rows(arrays: Sequence[Array], held: Sequence[Any], out: list[memoryview]) -> Array:
    """Arrays of shape (..., rows, width), concatenated along their rows."""
    dtype, shape = arrays[0].dtype, arrays[0].shape
    if len(shape) < 2 or any(
        (a.dtype, a.shape[:-2], a.shape[-1]) != (dtype, shape[:-2], shape[-1]) for a in arrays
    ):
        raise ValueError("arrays of several shapes")
    n = math.prod(shape[:-2])
    views = [(memoryview(b), a.nbytes // max(n, 1)) for a, b in zip(arrays, held, strict=True)]
    out.append(memoryview(b"".join(v[i * k : (i + 1) * k] for i in range(n) for v, k in views)))
    return Array(dtype, (*shape[:-2], sum(a.shape[-2] for a in arrays), shape[-1]))
