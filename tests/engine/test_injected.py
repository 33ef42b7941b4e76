"""Whatever fails on the engine's thread costs one job: never the engine, never a right answer.

For every call that the engine makes under real turns an exception is raised there once, before the
call, behind it, or half-way. `EVERWARM_EVERY_CALL=1` has each one fail (hours), 20 every 20th of a
name; the suite takes one call of each name, in one of the ways.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zoo
from injected import Fault, Turn, When, ask, engine_of
from turn_requests import marks_of, words

from everwarm.engine.model import LoadedModel, load_model
from everwarm.engine.state import bytes_at
from everwarm.engine.thread import EngineThread
from everwarm.job import Ended, Failed, Grammar, Job, Markers
from everwarm.request import Sampling
from everwarm.tokens import tokens_of

EVERY = int(os.environ.get("EVERWARM_EVERY_CALL", 0))
FAMILIES = ("llama", "qwen3_5", "gpt_oss") if EVERY else ("gpt_oss",)
ROOMY = 1 << 30
ANY = Grammar("start: /[ -~]{1,40}/", "start: /[ -~]{1,40}/")

MARKERS = Markers(("<think>", "</think>"), (), tokens_of([17, 18]), in_reasoning=True)


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[LoadedModel]:
    path = tmp_path_factory.mktemp("models") / request.param
    zoo.save(request.param, path, smollm2)
    made = load_model(str(path), model_id=None, context_length=None)
    bytes_at(made.model, 32)  # what it makes at its first step belongs to the thread that makes it
    yield made
    shutil.rmtree(path)


def job(name: str, tokens: list[int], **more: object) -> Job:
    made = Job(name, tokens_of(tokens), tuple(marks_of(tokens)), Sampling(), 6, logprobs=2)
    return replace(made, **more)  # type: ignore[arg-type]


HEAD = words(1, 90)
BRANCH = HEAD[:60] + words(2, 50)
OTHER = words(3, 120)


def conversation(engine: EngineThread, fault: Fault) -> list[Turn]:
    """Turns that copy, cut, continue, hold to a grammar, think, and run side by side."""
    out = ask(engine, fault, job("first", HEAD))
    out += ask(engine, fault, job("branch", BRANCH), job("other", OTHER))
    out += ask(engine, fault, job("again", HEAD + words(4, 70)))
    out += ask(engine, fault, job("short", HEAD[:50] + words(6, 3)))
    out += ask(engine, fault, job("held", BRANCH + words(5, 20), grammar=ANY))
    out += ask(engine, fault, job("thinks", OTHER[:90], markers=MARKERS, thinking_budget=2))
    settle(engine)
    return out


def settle(engine: EngineThread) -> None:
    """Until the disk has what it wants."""
    until = time.monotonic() + 30
    while not engine.call(lambda: engine._tier is None or engine._tier.is_idle).result(30):
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.fixture(scope="module")
def right(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> list[Turn]:
    """What the turns say where nothing fails."""
    fault = Fault()
    engine = engine_of(loaded, fault, tmp_path_factory.mktemp("right"), budget=ROOMY)
    turns = conversation(engine, fault)
    assert engine.stop()
    return turns


def calls_of(loaded: LoadedModel, home: Path, budget: int) -> list[str]:
    """The calls of a conversation, and of the same after a restart."""
    fault = Fault()
    for _ in range(2):
        engine = engine_of(loaded, fault, home, budget=budget)
        fault.is_armed = True
        conversation(engine, fault)
        fault.is_armed = False
        assert engine.stop()
    return fault.calls


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.exc_info]


@pytest.mark.parametrize("when", ["before", "behind"])
@pytest.mark.parametrize("n_states", [3, 30])
def test_a_call_that_fails_costs_one_job_and_no_answer(
    loaded: LoadedModel,
    right: list[Turn],
    when: When,
    n_states: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = n_states * bytes_at(loaded.model, 32)(250)
    counts = Counter(calls_of(loaded, tmp_path / "whole", budget))
    n_failed = 0
    for name, n in places(counts, 2 * (when == "behind") + (n_states == 3)):
        caplog.clear()
        home = tmp_path / f"{name} {n}"
        fault = Fault(n, when, only=name)
        n_failed += sum(spoiled(loaded, fault, home, budget, right) for _ in range(2))
        assert len(tracebacks(caplog)) == fault.is_over, (fault.name, tracebacks(caplog))
        shutil.rmtree(home)
    assert n_failed > 0


def places(counts: Counter[str], share: int) -> list[tuple[str, int]]:
    """Which of the calls fail: every so many of each, or one of each in one of four shares."""
    if EVERY:
        return [(name, n) for name in counts for n in range(1, counts[name] + 1, EVERY)]
    return [(name, (counts[name] + 1) // 2) for name in sorted(counts)[share::4]]


def spoiled(loaded: LoadedModel, fault: Fault, home: Path, budget: int, right: list[Turn]) -> int:
    """A conversation in which a call may fail, and the same again where one has; failed turns.

    The second such finds on disk what the first one left.
    """
    engine = engine_of(loaded, fault, home, budget=budget)
    fault.is_armed = was_armed = not fault.is_over
    turns = conversation(engine, fault)
    fault.is_armed = False
    wrong = [t for t, cold in zip(turns, right, strict=True) if not t.agrees(cold)]
    assert all(was_armed and isinstance(t.last, Failed) for t in wrong), fault.name
    if was_armed and fault.is_over:
        again = conversation(engine, fault)
        assert all(isinstance(t.last, Ended) for t in again), fault.name
        assert all(t.agrees(cold) for t, cold in zip(again, right, strict=True)), fault.name
    assert engine.health().why is None
    assert engine.stats()["jobs"] == 0
    assert engine.stop()
    failed = [t for t in turns if isinstance(t.last, Failed)]
    assert len(failed) <= 1, fault.name
    return len(failed)
