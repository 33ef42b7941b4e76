"""Where replies should get so many tokens a second, no more of them begin than can have that."""

from __future__ import annotations

import pytest

from everwarm.engine.lane_limit import LaneLimit


def admitted(least: float, per_step_s: float, per_lane_s: float, wanted: int = 12) -> int:
    """How many of those that are wanted begin, one behind the other, on a machine like this."""
    limit, n = LaneLimit(least), 0
    for _ in range(wanted):
        if not limit.why_not(n + 1):
            n += 1
        for _ in range(20):
            limit.learn(n, per_step_s + n * per_lane_s)
    return n


@pytest.mark.parametrize(
    ("least", "expected"),
    # 0.1 s a step and 0.02 s a lane: five of them get 5.0 tokens a second, four 5.6.
    [(0.0, 12), (5.1, 4), (2.0, 12), (8.4, 1), (50.0, 1)],
)
def test_so_many_begin_as_the_floor_allows(least: float, expected: int) -> None:
    assert admitted(least, 0.1, 0.02) == expected


def test_one_is_never_too_many_and_who_waits_is_told_why() -> None:
    limit = LaneLimit(10.0)
    assert limit.why_not(64) == ""  # nothing is known yet
    limit.learn(1, 5.0)
    assert limit.why_not(1) == ""
    assert "fewer than 10 tokens a second" in limit.why_not(2)


def test_it_is_learnt_anew_when_conversations_get_longer() -> None:
    limit = LaneLimit(5.0)
    for _ in range(100):
        limit.learn(2, 0.1)
    assert limit.why_not(3) == ""
    for _ in range(100):
        limit.learn(2, 0.3)
    assert limit.why_not(3) != ""
