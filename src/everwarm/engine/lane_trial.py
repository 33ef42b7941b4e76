"""Whether a model's layers can take several lanes in one forward: tried once, when it is loaded.

Some families compute attention themselves, and cannot be given each lane's own rows: their replies
are written one token each in turn. The trial reads a token behind three prefixes of different
lengths, together and alone.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import mlx.core as mx

from everwarm.engine.lane_attention import attend_by_lane
from everwarm.engine.state import ModelState
from everwarm.tokens import tokens_of

PREFIXES: Final = (3, 7, 5)
MOST_OFF: Final = 0.05
"""Of the logits' spread. A matmul of more rows is rounded otherwise; other rows give other logits
altogether."""
log = logging.getLogger("everwarm.engine")


def can_take_lanes(model: Any) -> bool:
    """Whether lanes say what they say alone. Costs ten short forwards. Engine thread."""
    attend_by_lane()
    try:
        off = _off(model)
    # A model's own code, with arguments it was not written for, raises anything.
    except Exception as e:
        why = f"{type(e).__name__}: {(str(e).splitlines() or [''])[0][:120]}"
    else:
        if off <= MOST_OFF:
            return True
        why = f"logits are off by {off:.2f} of their spread"
    log.warning("lanes=one at a time, which is slower when several are asked at once: %s", why)
    return False


def _off(model: Any) -> float:
    """The largest difference, in standard deviations of the logits."""
    alone, together = ([_begun(model, n) for n in PREFIXES] for _ in range(2))
    tokens = [mx.array([n]) for n in PREFIXES]
    worst = mx.array(0.0)
    for _ in range(2):
        expected = [s.read(t) for s, t in zip(alone, tokens, strict=True)]
        for a, b in zip(expected, ModelState.read_together(together, tokens), strict=True):
            worst = mx.maximum(worst, mx.abs(a - b).max() / (mx.std(a) + 1e-6))
    found: Any = worst.item()
    return float(found)


def _begun(model: Any, n: int) -> ModelState:
    state = ModelState(model, width=0)
    state.read(tokens_of(range(n)))
    state.settle()
    return state
