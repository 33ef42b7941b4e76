"""What ends one lane in the middle of its reply touches no other: not a bit of their logits."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zoo
from injected import Fault, Turn, engine_of, until_over
from turn_requests import marks_of, words

from everwarm.engine.lane_trial import can_take_lanes
from everwarm.engine.model import LoadedModel, load_model
from everwarm.engine.state import bytes_at
from everwarm.engine.thread import EngineThread
from everwarm.job import Ended, Failed, Grammar, Job, Markers, Output, Token
from everwarm.request import Sampling
from everwarm.tokens import tokens_of

WIDTH = 4
"""At one width a lane has the same bits in any company, so that a touched one shows."""
HELD: dict[str, Any] = {"grammar": Grammar("start: /[ -~]{1,40}/", "start: /[ -~]{1,40}/")}
THINKING: dict[str, Any] = {
    "markers": Markers(("<think>", "</think>"), (), tokens_of([17, 18]), in_reasoning=True),
    "thinking_budget": 6,
}
CASES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "grammar": ("matcher.take", HELD),
    "mask": ("matcher.mask", HELD),
    "tokenizer": ("detokenizer.add", THINKING),
    "sampler": (None, {"sampling": Sampling(temperature=1, min_p=7)}),
    "sink": (None, {}),
    "gone": (None, {}),
}


@pytest.fixture(scope="module", params=["llama", "qwen3_5"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[LoadedModel]:
    path = tmp_path_factory.mktemp("models") / request.param
    zoo.save(request.param, path, smollm2)
    made = load_model(str(path), model_id=None, context_length=None)
    bytes_at(made.model, 32)  # what it makes at its first step belongs to the thread that makes it
    assert can_take_lanes(made.model)
    yield made
    shutil.rmtree(path)


def job(name: str, seed: int, n: int, **more: Any) -> Job:
    tokens = words(seed, n)
    asked = Job(name, tokens_of(tokens), tuple(marks_of(tokens)), Sampling(), 24, logprobs=2)
    return replace(asked, **more)


GOOD = [job("one", 1, 90), job("two", 2, 70, sampling=Sampling(temperature=0.8, seed=7))]


def run(engine: EngineThread, jobs: list[Job], ends: Callable[[int, Output], None]) -> list[Turn]:
    """Jobs side by side to their ends. `ends` is told each output of a job, by its number."""
    boxes: list[queue.SimpleQueue[Output]] = [queue.SimpleQueue() for _ in jobs]

    def sink(n: int, output: Output) -> None:
        if isinstance(output, Ended | Failed):
            boxes[n].put(output)
            return
        ends(n, output)
        boxes[n].put(output)

    for n, asked in enumerate(jobs):
        engine.submit(asked, lambda o, n=n: sink(n, o))  # type: ignore[misc]
    return [Turn(until_over(box)) for box in boxes]


@pytest.fixture(scope="module")
def alone(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> list[list[Token]]:
    """What each good job says with nobody beside it."""
    home = tmp_path_factory.mktemp("alone")
    engine = engine_of(loaded, Fault(), home, budget=1 << 30, width=WIDTH)
    turns = [run(engine, [asked], lambda *_: None)[0] for asked in GOOD]
    assert engine.stop()
    return [told(turn) for turn in turns]


def told(turn: Turn) -> list[Token]:
    return [o for o in turn.outputs if isinstance(o, Token)]


@pytest.mark.parametrize("case", CASES)
def test_an_error_of_one_lane_touches_no_other(
    case: str, loaded: LoadedModel, alone: list[list[Token]], tmp_path: Path
) -> None:
    call, more = CASES[case]
    fault = Fault(at=4 if call else 0, only=call, is_armed=call is not None)
    engine = engine_of(loaded, fault, tmp_path, budget=1 << 30, width=WIDTH)
    n_told = 0

    def ends(n: int, output: Output) -> None:
        nonlocal n_told
        if n != 1 or not isinstance(output, Token) or case not in ("sink", "gone"):
            return
        n_told += 1
        if n_told == 5 and case == "sink":
            raise ValueError("nobody listens")
        if n_told == 5:
            engine.cancel("bad")

    turns = run(engine, [GOOD[0], job("bad", 3, 80, **more), GOOD[1]], ends)
    fault.is_armed = False
    bad = turns[1].last
    assert isinstance(bad, Ended if case == "gone" else Failed)
    assert len(turns[1].reply) < 24
    assert [told(turns[0]), told(turns[2])] == alone
    assert engine.stop()
