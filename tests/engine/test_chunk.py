"""The size of a prefill's steps, under models of what a step costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from everwarm.engine.chunk import ALONE_S, LEAST, SHARED_S, ChunkSize

WHOLE = 2048


@dataclass(frozen=True)
class Machine:
    """What a step costs: a part per call, a part per token that grows with the depth."""

    per_call_s: float
    tokens_per_s: float
    growth: float = 0.0

    def took_s(self, n: int, at: int) -> float:
        per_token_s = (1 + self.growth * at / 40_000) / self.tokens_per_s
        return self.per_call_s + n * per_token_s


def prefill(
    chunk: ChunkSize,
    machine: Machine,
    is_shared: Callable[[int], bool] = lambda _: False,
    n: int = 40_000,
) -> list[tuple[int, float]]:
    """Size and seconds of each step of one prompt."""
    at, out = 0, list[tuple[int, float]]()
    while at < n:
        size = chunk.size(is_shared=is_shared(len(out)))
        out.append((size, machine.took_s(size, at)))
        chunk.learn(*out[-1])
        at += size
    return out


def rate(steps: list[tuple[int, float]]) -> float:
    return sum(n for n, _ in steps) / sum(s for _, s in steps)


DENSE = Machine(0.05, 300)
MIXTURE = Machine(0.4, 400)
QUICK = Machine(0.01, 10_000)
DEEP = Machine(0.02, 3000, growth=5)


@pytest.mark.parametrize("machine", [DENSE, QUICK, DEEP])
def test_steps_alone_take_about_a_second_at_most(machine: Machine) -> None:
    steps = prefill(ChunkSize(WHOLE), machine)
    assert max(s for _, s in steps[2:]) < 2 * ALONE_S
    assert rate(steps) > 0.75 * rate(
        [(WHOLE, machine.took_s(WHOLE, at)) for at in range(0, 40_000, WHOLE)]
    )


@pytest.mark.parametrize("machine", [DENSE, QUICK, Machine(0.02, 3000)])
def test_steps_beside_another_job_are_short(machine: Machine) -> None:
    steps = prefill(ChunkSize(WHOLE), machine, lambda _: True)
    assert max(s for _, s in steps[1:]) < 1.2 * SHARED_S


def test_a_shared_phase_is_over_when_it_is_over() -> None:
    steps = prefill(ChunkSize(WHOLE), DENSE, lambda i: i < 8)
    alone = prefill(ChunkSize(WHOLE), DENSE)
    assert [n for n, _ in steps[8:]] == [alone[-1][0]] * len(steps[8:])


def test_the_next_job_begins_where_the_last_one_ended() -> None:
    chunk = ChunkSize(WHOLE)
    learnt = prefill(chunk, DENSE)[-1][0]
    assert prefill(chunk, DENSE)[0][0] == learnt


def test_what_a_call_costs_takes_at_most_half_of_a_step() -> None:
    for is_shared in (True, False):
        steps = prefill(ChunkSize(WHOLE), MIXTURE, lambda _, s=is_shared: s)
        assert all(n / MIXTURE.tokens_per_s >= MIXTURE.per_call_s for n, _ in steps[2:])


def test_a_first_step_that_loads_the_weights_is_forgotten() -> None:
    chunk = ChunkSize(WHOLE)
    chunk.learn(chunk.size(is_shared=False), 30.0)
    steps = prefill(chunk, Machine(0.02, 3000))
    assert [n for n, _ in steps[4:]] == [WHOLE] * len(steps[4:])


@pytest.mark.parametrize("whole", [16, 64, 100, 512, 777, 2048])
def test_all_cuts_lie_on_the_grid_of_the_smallest_step(whole: int) -> None:
    sizes = set[int]()
    for machine in (DENSE, MIXTURE, QUICK, DEEP, Machine(1.0, 10)):
        for is_shared in (True, False):
            steps = prefill(ChunkSize(whole), machine, lambda _, s=is_shared: s, n=8000)
            sizes |= {n for n, _ in steps}
    assert all(whole % n == 0 and (whole // n).bit_count() == 1 for n in sizes)
    assert min(sizes) >= min(whole, LEAST)


def test_a_step_that_took_no_time_is_no_harm() -> None:
    chunk = ChunkSize(WHOLE)
    chunk.learn(10, 0.0)
    chunk.learn(512, 0.0)
    assert chunk.size(is_shared=True) == WHOLE
