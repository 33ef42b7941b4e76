"""The engine's own loop under the same random histories as the cache."""

from __future__ import annotations

import os

from conversations import explore
from engine_conversations import OnTheEngine

STEPS = int(os.environ.get("EVERWARM_MACHINE_STEPS", 20_000)) // 10


def test_the_engines_loop_gives_cold_replies_whatever_happens() -> None:
    assert explore(OnTheEngine, STEPS)["together"]
