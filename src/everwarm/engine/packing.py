"""Many small arrays in few large buffers: all of one shape and type lie in one. Engine thread only.

    layer 1 |keys| layer 2 |keys| ...  layer n |keys|      n buffers of live states
    |keys 1|keys 2| ... |keys n|                           one buffer, of which n arrays are views

Metal limits how many buffers a process has. A piece at rest is dropped as a whole, so that nothing
is lost by keeping its arrays together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import mlx.core as mx

MOST_BYTES: Final = 256 << 20
"""Of a buffer: Metal bounds these, too, and large free ones are hard to find."""


def packed(held: Any) -> tuple[Any, int]:
    """The same lists and tuples with copies of their arrays, and in how many buffers these lie.

    Other objects stay as they are. Costs one copy of each array, and no more memory than that.
    """
    found = list(_arrays(held))
    copies = dict[int, mx.array]()
    groups = list(_alike(found))
    for like in groups:
        copies |= zip(like, _copied([found[i] for i in like]), strict=True)
    return _with(held, iter([copies[i] for i in range(len(found))])), len(groups)


def _alike(found: list[mx.array]) -> Iterator[tuple[int, ...]]:
    """The indices of arrays that go into one buffer together."""
    groups: dict[Any, list[int]] = {}
    for i, a in enumerate(found):
        groups.setdefault((a.shape, a.dtype), []).append(i)
    for indices in groups.values():
        at_once = max(MOST_BYTES // max(found[indices[0]].nbytes, 1), 1)
        for start in range(0, len(indices), at_once):
            yield tuple(indices[start : start + at_once])


def _copied(alike: list[mx.array]) -> list[mx.array]:
    """Copies, evaluated: what they were taken from may be written in place afterwards."""
    if len(alike) == 1:
        # mx.array copies; contiguous alone would alias a whole array.
        views = [mx.array(mx.contiguous(alike[0]))]
    else:
        both = mx.stack(alike)
        mx.eval(both)
        # A slice is a view; an index would copy.
        views = [mx.squeeze(both[i : i + 1], 0) for i in range(len(alike))]
    mx.eval(views)
    return views


def _arrays(held: Any) -> Iterator[mx.array]:
    if isinstance(held, mx.array):
        yield held
    elif isinstance(held, list | tuple):
        for part in held:
            yield from _arrays(part)


def _with(held: Any, copies: Iterator[mx.array]) -> Any:
    """The same structure with other arrays."""
    if isinstance(held, mx.array):
        return next(copies)
    if isinstance(held, list | tuple):
        return type(held)([_with(part, copies) for part in held])
    return held
