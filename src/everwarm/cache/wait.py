"""Whether a prompt should wait for a state that is being built. Pure: nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from everwarm.cache.restore import RestorePlan
from everwarm.cache.tree import Holder, Node
from everwarm.tokens import Tokens, common_length

WORTH_WAITING: Final = 64


def should_wait(
    states: Iterable[Holder],
    tokens: Tokens[int],
    chosen: RestorePlan,
    root: Node,
    *,
    is_cuttable: bool,
) -> bool:
    """Whether a busy state will soon hold more of this prompt than anything holds now."""
    for h in states:
        if not h.busy or h.root is not root:
            continue
        if h.ending:
            if common_length(h.sequence.tokens, tokens) > chosen.at:
                return True
            continue
        shared = min(common_length(h.goal, tokens), len(tokens) - 1)
        if not is_cuttable:
            shared = max((m.at for m in h.marks if m.at <= shared), default=0)
        if (h.sequence.end or 0) < shared and shared > chosen.at + WORTH_WAITING:
            return True
    return False
