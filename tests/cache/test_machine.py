"""Random histories of conversations against the oracle: 10,000 steps, or as many as asked for.

`EVERWARM_MACHINE_STEPS` sets how many, `EVERWARM_MACHINE_SEED` where the draws begin, and
`EVERWARM_MACHINE_SHRINK=1` looks for a short way to a failure, which takes minutes.
"""

from __future__ import annotations

import os

from conversations import Conversations, explore

STEPS = int(os.environ.get("EVERWARM_MACHINE_STEPS", 10_000))


def test_warm_replies_are_cold_replies_whatever_happens() -> None:
    met = explore(Conversations, STEPS)
    print(dict(met))
    never = {"waits", "nothing", "live", "rewind", "fork", "pieces"} - set(met)
    assert not never, f"the histories never made the cache answer with {never}"
