"""One forward for several sequences, each over rows of its own: nothing is padded or copied.

A *lane* is a sequence that decodes. The model is given one token of each, shape (lanes, 1), and per
layer an adapter in the place of its cache:

    matmuls       all lanes' tokens at once
    rows          each lane's own cache takes its key and value, and attention runs lane by lane
    recurrent     arrays of all lanes joined along axis 0 while the same lanes run

Models are not changed: they ask a layer for its offset, its mask and its rows, and are given one
offset per lane, and lists. `lane_attention.py` wraps the one function that they hand those to.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, CacheList

from everwarm.engine import layers
from everwarm.engine.lane_attention import LaneMasks, LaneRows

if TYPE_CHECKING:
    from everwarm.engine.state import ModelState

_T = TypeVar("_T")


class Company:
    """States that read on together, a token each. Live: engine thread only.

    While they do, the arrays of their recurrent layers are here; `part` gives a state its own.
    It keeps no state alive, nor its rows: one that has left may be dropped.
    """

    def __init__(self, states: Sequence[ModelState], width: int = 0) -> None:
        """States of one model that each `may_join`. Fewer than `width` are filled up to it.

        A kernel is chosen by the number of rows: where that never changes, nor do a reply's bits.
        """
        self._fill = max(width - len(states), 0)
        self._states = [weakref.ref(s) for s in states]
        self._model = states[0].model
        self._rows: list[_RowsOfLanes | None] = []
        self._joined: list[_JoinedArrays] = []
        self._held: list[list[Any]] = []
        self._offsets = _Offsets()
        by_layer = zip(*(s.caches for s in states), strict=True)
        self._caches = [self._adapter(list(of)) for of in by_layer]

    def is_of(self, states: Sequence[ModelState]) -> bool:
        """Whether these states, in this order, are all of it."""
        return len(states) == len(self._states) and all(
            r() is s for r, s in zip(self._states, states, strict=True)
        )

    def read(self, states: Sequence[ModelState], tokens: Sequence[mx.array]) -> list[mx.array]:
        """Feed each lane one token, shape (1,); its logits, shape (1, 1, vocabulary), lazy."""
        self._offsets.begin(self._filled([s.length for s in states]))
        self._held = [list(j.cache) for j in self._joined]
        self._lend([list(of) for of in zip(*(s.leaves for s in states), strict=True)])
        try:
            ids = mx.concatenate(self._filled(list(tokens)))
            out = self._model(ids[:, None], cache=self._caches)
        finally:
            self._lend([[] for _ in self._rows])
        return [out[i : i + 1] for i in range(len(states))]

    def part(self, state: ModelState, *, before: bool = False) -> list[list[Any]]:
        """Copies of what a state's recurrent layers hold, or held `before` the last `read`; lazy.

        Not slices, which would keep the arrays of all lanes in memory.
        """
        at = mx.array([next(i for i, r in enumerate(self._states) if r() is state)])
        held: list[list[Any]] = self._held if before else [list(j.cache) for j in self._joined]
        return [[mx.take(a, at, axis=0) for a in arrays] for arrays in held]

    def _filled(self, rows: list[_T]) -> list[_T]:
        """With copies of the first row behind those of the lanes."""
        return rows + [rows[0]] * self._fill

    def _lend(self, by_layer: list[list[Any]]) -> None:
        """Give the adapters the lanes' caches for one call."""
        for adapter, of in zip(self._rows, by_layer, strict=True):
            if adapter is not None:
                adapter.of = of

    def _adapter(self, of: list[Any]) -> Any:
        if isinstance(of[0], CacheList):
            members = zip(*(c.caches for c in of), strict=True)
            return CacheList(*[self._adapter(list(m)) for m in members])
        if layers.kind(of[0]) == "opaque":
            self._rows.append(None)
            self._joined.append(_JoinedArrays(self._filled(of)))
            return self._joined[-1]
        self._rows.append(_RowsOfLanes(self._offsets, self._fill))
        return self._rows[-1]


def read_on(states: Sequence[ModelState], tokens: Sequence[mx.array]) -> list[mx.array]:
    """`Company.read` of states that each `may_join`, in the company that they have or a new one."""
    company = states[0].company
    is_whole = all(s.company is company for s in states)  # one may have left, and be back
    if company is None or not is_whole or not company.is_of(states):
        for s in states:
            s.leave()
        company = Company(states, states[0].width or 0)
        for s in states:
            s.enter(company)
    out = company.read(states, tokens)
    for s in states:
        s.length += 1
    return out


class _Offsets:
    """Where each lane stood before this step, and behind it; one array for all layers."""

    def begin(self, lengths: list[int]) -> None:
        self.before = mx.array(lengths)
        self._after: mx.array | None = None

    @property
    def after(self) -> mx.array:
        if self._after is None:
            self._after = self.before + 1
        return self._after


class _RowsOfLanes:
    """In the place of a cache that keeps rows: each lane's own."""

    def __init__(self, offsets: _Offsets, fill: int) -> None:
        self._offsets, self._fill = offsets, fill
        self.of: list[Any] = []
        self._read_at: mx.array | None = None

    @property
    def offset(self) -> mx.array:
        is_behind = self._read_at is self._offsets.before
        return self._offsets.after if is_behind else self._offsets.before

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[LaneRows, LaneRows]:
        self._read_at = self._offsets.before
        own = zip(self.of, mx.split(keys, len(keys)), mx.split(values, len(values)), strict=False)
        pairs = [c.update_and_fetch(k, v) for c, k, v in own]
        first = self.of[0]
        quantised = (first.group_size, first.bits) if hasattr(first, "bits") else None
        return (
            LaneRows([k for k, _ in pairs], self._fill, quantised),
            LaneRows([v for _, v in pairs], self._fill, quantised),
        )

    def make_mask(self, *args: Any, **kwargs: Any) -> LaneMasks | None:
        masks = [c.make_mask(*args, **kwargs) for c in self.of]
        return None if all(m is None for m in masks) else LaneMasks(masks)


class _JoinedArrays(ArraysCache):
    """In the place of a recurrent layer's cache: the lanes' arrays, joined along axis 0."""

    def __init__(self, of: list[Any]) -> None:
        super().__init__(len(of[0].cache))
        joined: Any = [
            mx.concatenate(list(slot)) for slot in zip(*(c.cache for c in of), strict=True)
        ]
        self.cache = joined
