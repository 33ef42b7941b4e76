"""Random histories of conversations against the oracle: 10,000 steps, or as many as asked for.

`EVERWARM_MACHINE_STEPS` sets how many, `EVERWARM_MACHINE_SEED` where the draws begin, and
`EVERWARM_MACHINE_SHRINK=1` looks for a short way to a failure, which takes minutes.
"""

from __future__ import annotations

import os

from conversations import Conversations, steps
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

STEPS = int(os.environ.get("EVERWARM_MACHINE_STEPS", 10_000))
SEED = int(os.environ.get("EVERWARM_MACHINE_SEED", 0))
SHRINK = (Phase.shrink,) if os.environ.get("EVERWARM_MACHINE_SHRINK") else ()
RULES = ("begins", "goes on", "edits", "regenerates", "forks", "steps", "runs", "cancels", "fails",
         "evicts")  # fmt: skip
MET = ("waits", "nothing", "live", "rewind", "fork", "pieces")


def done() -> int:
    return sum(steps[name] for name in RULES)


def test_warm_replies_are_cold_replies_whatever_happens() -> None:
    steps.clear()
    few = settings(
        max_examples=50,
        stateful_step_count=60,
        deadline=None,
        database=None,
        phases=(Phase.generate, *SHRINK),
        suppress_health_check=list(HealthCheck),
    )
    run = SEED
    while done() < STEPS:
        run_state_machine_as_test(seed(run)(Conversations), settings=few)
        run += 1
    print(dict(steps))
    assert all(steps[name] for name in RULES + MET), f"something never happened: {dict(steps)}"
