"""How a model's attention layers keep what they have read, where a person wants it otherwise.

Rows in 8 or 4 bits, or a window of the last tokens. `arrange` gives a loaded model other caches by
mlx-lm's own seam, `make_cache`: whoever asks for a model's caches gets them, so that the tree, the
disk's fingerprint and the room of a job know nothing of it. What a position holds depends on the
tokens up to it and on nothing else; an arrangement for which that is not so is refused.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx
from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache

from everwarm.config import Settings
from everwarm.engine import layers
from everwarm.errors import ConfigError

KEEP: Final = 4
"""First tokens that a window never lets go, as in mlx-lm: attention leans on them."""
QUANTISED_LOSS: Final = (
    "Rows of attention are kept in %d bits: replies may change, and each token costs more to "
    "write. In the experiment published with mlx-soloheaven, 8 bits came with tokens/s that fell "
    "by 16.5%% over the conversation (7.4%% with whole rows)."
)
WINDOW_LOSS: Final = (
    "Attention sees the first %d and the last %d tokens only: what was said before is forgotten. "
    "In the experiment published with mlx-soloheaven, a window of 8,192 tokens recalled 4 of 8 "
    "facts."
)
log = logging.getLogger("everwarm.engine")


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What is wanted: rows in `bits` with one scale for `group_size` numbers, or a `window`."""

    bits: int | None = None
    group_size: int = 64
    window: int | None = None

    @classmethod
    def of(cls, s: Settings) -> Arrangement:
        """As settings have it. Raises ConfigError where they contradict each other."""
        if s.kv_bits is not None and s.max_kv_size is not None:
            raise ConfigError(
                "kv_bits and max_kv_size exclude each other: a window's rows cannot be quantised. "
                "Leave one of them out."
            )
        if s.kv_bits is None and s.kv_group_size != Settings().kv_group_size:
            raise ConfigError("kv_group_size is of use with kv_bits only; set kv_bits to 8 or 4.")
        return cls(s.kv_bits, s.kv_group_size, s.max_kv_size)


def arrange(model: Any, wanted: Arrangement) -> None:
    """Give the model's layers the caches that are wanted, and warn of what they lose.

    Engine thread. Raises ConfigError, which names the setting, where the layers cannot do it.
    """
    if wanted.bits is not None:
        _check_heads(model, wanted.group_size)
        bits, group_size = wanted.bits, wanted.group_size
        made = _made_of(model, lambda: QuantizedKVCache(group_size=group_size, bits=bits))
        _try(model, made, f"kv_bits={bits}")
        log.warning(QUANTISED_LOSS, bits)
    elif wanted.window is not None:
        _check_plain(model, "max_kv_size", others=frozenset())
        size = wanted.window
        made = _made_of(model, lambda: layers.SinkWindow(max_size=size, keep=KEEP))
        _try(model, made, f"max_kv_size={size}")
        log.warning(WINDOW_LOSS, KEEP, size - KEEP)
    else:
        return
    model.make_cache = made


def _made_of(model: Any, one: Callable[[], Any]) -> Callable[[], list[Any]]:
    """What makes the model's own caches, with `one` in the place of each plain one."""
    plain = [type(c) is KVCache for c in make_prompt_cache(model)]
    own = getattr(model, "make_cache", None) or (lambda: [KVCache() for _ in plain])

    def make() -> list[Any]:
        return [one() if type(c) is KVCache else c for c in own()]

    return make


def _check_plain(model: Any, setting: str, others: frozenset[str]) -> list[Any]:
    """The model's plain layers; ConfigError where it has none, or layers of classes not named."""
    caches = make_prompt_cache(model)
    found = Counter(type(c).__name__ for c in caches if type(c) is not KVCache)
    wrong = ", ".join(f"{n} of {name}" for name, n in found.items() if name not in others)
    if wrong or found.total() == len(caches):
        held = wrong or "no layer of KVCache"
        raise ConfigError(
            f"{setting} is for layers that keep every token's row (KVCache); this model has "
            f"{held}. Leave {setting} out."
        )
    return caches


def _check_heads(model: Any, group_size: int) -> None:
    """ConfigError where a row cannot be quantised in groups of that size."""
    caches = _check_plain(model, "kv_bits", others=frozenset({"ArraysCache"}))
    model(mx.array([[0]]), cache=caches)
    rows = [a for c in caches if type(c) is KVCache for a in (c.keys, c.values)]
    dims = {a.shape[-1] for a in rows if a is not None}
    if wrong := sorted(d for d in dims if d % group_size):
        raise ConfigError(
            f"kv_group_size {group_size} does not divide this model's rows of {wrong[0]} numbers. "
            "Choose 32 where that divides them, or leave kv_bits out."
        )


def _try(model: Any, made: Callable[[], list[Any]], what: str) -> None:
    """Read a few tokens with such caches; ConfigError where the model's own code cannot."""
    caches = made()
    try:
        for ids in ([0, 1, 2], [3]):
            mx.eval(model(mx.array([ids]), cache=caches))
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as e:
        setting = what.partition("=")[0]
        raise ConfigError(
            f"This model cannot work with {what} ({str(e).splitlines()[0]}). Leave {setting} out."
        ) from e
