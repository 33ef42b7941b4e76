"""Attention over each lane's own rows: what MLX's function cannot do yet, put before it.

An upstream shim, like those in `compat.py`, which come before MLX is loaded. It dies when MLX's
attention takes rows of several lengths in one call.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import mlx.core as mx
from mlx_lm.models.base import quantized_scaled_dot_product_attention as quantised

_MORE: Final = ("mask", "sinks")
"""Arguments of attention that are a head's own."""


class LaneRows:
    """Keys, or values, of several lanes: an array, or a quantised triple, of shape (1, …) each.

    `fill`: how many rows of the step are nobody's, and get what the first lane gets. `quantised`:
    (group_size, bits) where they are.
    """

    def __init__(self, of: list[Any], fill: int, quantised: tuple[int, int] | None) -> None:
        self.of, self.fill, self.quantised = of, fill, quantised

    def swapaxes(self, a: int, b: int) -> TurnedRows:
        return TurnedRows([rows.swapaxes(a, b) for rows in self.of])


class TurnedRows(mx.array):
    """Rows that queries are multiplied with, as multi-head latent attention does for its mask.

    An array only so that Python asks it first: MLX's own product takes nothing but arrays.
    """

    def __init__(self, of: list[Any]) -> None:
        super().__init__(0)
        self.of = of

    def __rmatmul__(self, queries: Any) -> LaneMasks:
        return LaneMasks([queries[i : i + 1] @ rows for i, rows in enumerate(self.of)])


class LaneMasks:
    """A mask, or None, for each lane."""

    def __init__(self, of: list[Any]) -> None:
        self.of = of


def attend_by_lane() -> None:
    """Let attention take `LaneRows`: each lane's query meets its own rows. Idempotent.

    Everything else goes to MLX's function as it came, but for single queries on the CPU.
    """
    fast: Any = mx.fast
    if hasattr(fast.scaled_dot_product_attention, "by_lane"):
        return
    original = fast.scaled_dot_product_attention

    def attend(queries: Any, keys: Any, values: Any, **others: Any) -> Any:
        if not isinstance(keys, LaneRows):
            return original(queries, keys, values, **others)
        mask = others.pop("mask", None)
        masks = mask.of if isinstance(mask, LaneMasks) else [mask] * len(keys.of)
        each = original
        if keys.quantised is not None:
            group_size, bits = keys.quantised
            others.pop("sinks", None)  # mlx-lm refuses those with quantised rows
            each = partial(quantised, group_size=group_size, bits=bits)
        rows = zip(mx.split(queries, len(queries)), keys.of, values.of, masks, strict=False)
        out = [each(q, k, v, mask=m, **others) for q, k, v, m in rows]
        return mx.concatenate(out + out[:1] * keys.fill)

    fast.scaled_dot_product_attention = of_one_query(attend)
    fast.scaled_dot_product_attention.by_lane = True


def of_one_query(original: Any) -> Any:
    """Attention, alone or by lane, with heads that share keys taken at once for one query.

    On the CPU MLX multiplies the keys with one head after the other, and reads them as often: to it
    the heads of a group are several queries of one head. Half of the time at 60,000 rows.
    """
    on_cpu = mx.default_device() == mx.Device(mx.cpu)

    def attend(queries: Any, keys: Any, values: Any, **others: Any) -> Any:
        n, heads, length, size = queries.shape
        rows = keys.of[0] if isinstance(keys, LaneRows) else keys
        is_plain = isinstance(rows, mx.array) and all(others.get(x) is None for x in _MORE)
        groups = rows.shape[1] if is_plain and on_cpu and length == 1 else heads
        if groups == heads:
            return original(queries, keys, values, **others)
        grouped = queries.reshape(n, groups, heads // groups, size)
        out = original(grouped, keys, values, **others)
        return out.reshape(n, heads, 1, out.shape[-1])

    return attend
