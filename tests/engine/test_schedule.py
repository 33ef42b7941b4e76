"""Time is shared by seconds: a long prefill never starves a reply that is being written."""

from __future__ import annotations

import pytest

from everwarm.engine.schedule import PASSED, Schedule

DECODE_MS, CHUNK_MS = 20, 250
CHUNK = 512


def simulate(share: float, total_ms: int) -> tuple[int, int]:
    """Steps of lanes and chunks within a time, when replies are written while a prompt is read."""
    schedule = Schedule(share)
    now_ms, steps, chunks = 0, 0, 0
    left = {"prompt": 1 << 20}
    while now_ms < total_ms:
        if schedule.next(left, decoding=True) is None:
            now_ms, steps = now_ms + DECODE_MS, steps + 1
            schedule.decoded(DECODE_MS / 1000)
        else:
            now_ms, chunks = now_ms + CHUNK_MS, chunks + 1
            schedule.prefilled("prompt", CHUNK, CHUNK_MS / 1000, left)
    return steps, chunks


def test_replies_keep_half_of_their_steps_while_a_prompt_is_read() -> None:
    alone = 60_000 // DECODE_MS
    steps, chunks = simulate(0.5, 60_000)
    assert steps >= alone / 2 - CHUNK_MS / DECODE_MS
    assert chunks * CHUNK_MS >= 0.48 * 60_000


@pytest.mark.parametrize("share", [0.1, 0.25, 0.75])
def test_the_share_is_a_setting(share: float) -> None:
    _, chunks = simulate(share, 60_000)
    assert chunks * CHUNK_MS == pytest.approx(share * 60_000, rel=0.1)


def test_time_without_company_is_not_owed() -> None:
    schedule = Schedule(0.5)
    for _ in range(100):
        assert schedule.next({"a": 9000}, decoding=False) == "a"
        schedule.prefilled("a", CHUNK, 1.0, {"a": 9000})
    chosen = [schedule.next({"a": 9000}, decoding=True)]
    schedule.prefilled("a", CHUNK, 0.1, {"a": 9000})
    for _ in range(10):
        chosen.append(schedule.next({"a": 9000}, decoding=True))
        schedule.decoded(0.02)
    assert chosen == ["a", *[None] * 5, *["a"] * 5]


def test_the_shortest_prefill_is_next() -> None:
    schedule = Schedule(0.5)
    assert schedule.next({"long": 60_000, "short": 40}, decoding=False) == "short"


def test_a_short_one_waits_for_one_step_and_what_it_took_is_owed() -> None:
    schedule = Schedule(0.5)
    left = {"long": 9000, "short": 40}
    schedule.next({"long": 9000}, decoding=True)
    schedule.prefilled("long", CHUNK, 0.25, {"long": 9000})
    assert schedule.next(left, decoding=True, short=100) is None
    schedule.decoded(0.02)
    assert schedule.next(left, decoding=True, short=39) is None
    assert schedule.next(left, decoding=True, short=40) == "short"
    schedule.prefilled("short", 40, 0.1, left)
    steps = 0
    while schedule.next({"long": 9000}, decoding=True, short=40) is None:
        schedule.decoded(0.02)
        steps += 1
    assert steps == pytest.approx((0.25 - 0.02 + 0.1) / 0.02, abs=1)


def test_a_long_prompt_waits_for_some_tokens_of_others_and_not_for_ever() -> None:
    schedule = Schedule(0.5)
    long, n, passed = 60_000, 2000, 0
    while True:
        left = {"long": long, f"short {passed}": n}
        job_id = schedule.next(left, decoding=False)
        assert job_id is not None
        if job_id == "long":
            break
        schedule.prefilled(job_id, n, 0.5, left)
        passed += n
    assert passed <= long / PASSED


def test_who_has_ended_is_forgotten() -> None:
    schedule = Schedule(0.5)
    schedule.prefilled("b", 10_000, 1.0, {"a": 5000, "b": 0})
    assert schedule.next({"b": 100}, decoding=False) == "b"
    assert schedule.next({"a": 5000, "b": 100}, decoding=False) == "b"
