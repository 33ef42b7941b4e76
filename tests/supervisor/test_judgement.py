"""When an engine hangs, when it starts again, and whose prompt is refused: pure rules."""

from __future__ import annotations

import pytest

from everwarm.supervisor.death import Death
from everwarm.supervisor.hang_watch import HangWatch
from everwarm.supervisor.restarts import Restarts
from everwarm.supervisor.strikes import REFUSED_S, Strikes
from everwarm.tokens import Tokens, tokens_of

A, B = tokens_of([1, 2, 3]), tokens_of([4, 5, 6])


def ticks(watch: HangWatch, seconds: float, *, is_busy: bool = True, beats: bool = True) -> str:
    """Let time go by without a step; gives the first verdict."""
    for _ in range(int(seconds / 0.25)):
        if beats:
            watch.beat(watch._step)
        if (why := watch.tick(0.25, is_busy=is_busy)) is not None:
            return why
    return ""


def ready(timeout_s: float = 60) -> HangWatch:
    watch = HangWatch(timeout_s)
    watch.beat(1)
    return watch


def test_a_step_that_takes_too_long_is_a_hang() -> None:
    assert ticks(ready(), 59) == ""
    assert "step took over 60 s" in ticks(ready(), 62)


def test_an_idle_engine_may_do_nothing_for_ever() -> None:
    assert ticks(ready(), 10_000, is_busy=False) == ""


def test_a_step_counts_from_when_a_job_came() -> None:
    watch = ready()
    ticks(watch, 59, is_busy=False)
    assert ticks(watch, 59) == ""


def test_slow_steps_make_patient() -> None:
    watch = ready()
    assert ticks(watch, 30) == ""
    watch.beat(2)
    assert ticks(watch, 590) == ""
    assert "step" in ticks(watch, 20)


def test_a_hang_doubles_the_patience_with_the_next_engine_until_a_turn_is_answered() -> None:
    watch = ready()
    assert ticks(watch, 62)
    watch.begin()
    watch.beat(1)
    assert ticks(watch, 119) == ""
    watch.good_turn()
    assert ticks(watch, 1)


def test_silence_is_a_hang_even_without_a_job() -> None:
    assert "heartbeat" in ticks(ready(), 31, is_busy=False, beats=False)
    assert ticks(ready(), 29, is_busy=False, beats=False) == ""


def test_a_missing_heartbeat_is_no_silence_however_short_the_bound_is() -> None:
    watch = ready(1)
    for _ in range(20):
        assert ticks(watch, 1.5, is_busy=False, beats=False) == ""
        watch.beat(1)


def test_a_model_gets_longer_to_be_loaded() -> None:
    assert ticks(HangWatch(60), 590, is_busy=False, beats=False) == ""
    assert "heartbeat" in ticks(HangWatch(60), 610, is_busy=False, beats=False)


def test_with_0_nothing_is_a_hang() -> None:
    assert ticks(ready(0), 100_000, beats=False) == ""


def test_restarts_wait_longer_until_a_turn_is_answered() -> None:
    restarts = Restarts()
    assert [restarts.wait_s(0, 5) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert [restarts.wait_s(1, 5) for _ in range(3)] == [0, 1, 2]
    assert restarts.count == 12


def test_an_engine_that_lived_longer_than_any_wait_starts_again_at_once() -> None:
    """All that came were long prefills: no turn was answered, and nothing is wrong with it."""
    restarts = Restarts()
    assert [restarts.wait_s(0, 61) for _ in range(3)] == [0, 0, 0]
    assert [restarts.wait_s(0, 5) for _ in range(2)] == [1, 2]


def died(strikes: Strikes, *prompts: Tokens[int], ran_s: float = 1, now: float = 0) -> None:
    strikes.died({str(n): (p, ran_s) for n, p in enumerate(prompts)}, now)


def test_a_prompt_is_refused_after_three_deaths_of_which_the_last_was_alone() -> None:
    strikes = Strikes()
    for n in range(3):
        assert strikes.refusal(A, n) is None
        died(strikes, A, now=n)
    assert strikes.refusal(A, 3) is not None and strikes.refusal(B, 3) is None
    assert strikes.refusal(A, 2 + REFUSED_S - 1) is not None
    assert strikes.refusal(A, 2 + REFUSED_S) is None


def test_a_neighbour_is_never_refused() -> None:
    strikes = Strikes()
    for _ in range(50):
        died(strikes, A, B)
    assert strikes.refusal(A, 0) is None and strikes.refusal(B, 0) is None


def test_several_replies_to_one_prompt_are_one_suspect() -> None:
    strikes = Strikes()
    died(strikes, A, A, A, B, ran_s=7)
    assert strikes.alone_s(A, 0) == strikes.alone_s(B, 0) == 0
    died(strikes, A)
    assert strikes.alone_s(A, 0) and strikes.refusal(A, 0) is None
    died(strikes, A, A)
    assert strikes.refusal(A, 0) is not None


def test_a_suspect_runs_alone_for_a_little_longer_than_it_lived() -> None:
    strikes = Strikes()
    died(strikes, A, B, ran_s=7)
    assert strikes.alone_s(A, 0) == 0
    died(strikes, A, ran_s=3)
    assert strikes.alone_s(A, 0) == 12 and strikes.alone_s(B, 0) == 0


def test_an_answer_clears_a_suspect() -> None:
    strikes = Strikes()
    died(strikes, A, B)
    died(strikes, A, B)
    strikes.answered(A)
    assert strikes.alone_s(A, 0) == 0 and strikes.alone_s(B, 0) > 0


@pytest.mark.parametrize(
    ("code", "hang", "is_from_outside"),
    [(-9, None, True), (-15, None, True), (0, None, True), (-9, "no heartbeat", False)]
    + [(code, None, False) for code in (-6, -11, 1, 70, None)],
)
def test_who_is_to_blame(code: int | None, hang: str | None, is_from_outside: bool) -> None:
    death = Death(code=code, words="", lived_s=1, hang=hang)
    assert death.is_from_outside == is_from_outside
