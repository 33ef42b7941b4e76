"""What becomes of a job, a call and the engine where something fails, one case at a time."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zoo
from injected import Fatal, Fault, ask, engine_of
from turn_requests import marks_of, words

from everwarm.cache.policy import WRITE_SHARE
from everwarm.engine.model import LoadedModel, load_model
from everwarm.engine.state import bytes_at
from everwarm.engine.thread import EngineThread
from everwarm.errors import EngineError, Overloaded
from everwarm.job import Ended, Failed, Grammar, Job, Leased, Markers, Output
from everwarm.request import Sampling
from everwarm.tokens import tokens_of

WAIT_S = 30
LONG = words(1, 300)


@pytest.fixture(scope="module", params=["llama", "qwen3_5"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[LoadedModel]:
    path = tmp_path_factory.mktemp("models") / request.param
    zoo.save(request.param, path, smollm2)
    made = load_model(str(path), model_id=None, context_length=None)
    bytes_at(made.model, 32)  # what it makes at its first step belongs to the thread that makes it
    yield made
    shutil.rmtree(path)


@pytest.fixture
def fault() -> Fault:
    return Fault()


@pytest.fixture
def engine(loaded: LoadedModel, fault: Fault, tmp_path: Path) -> Iterator[EngineThread]:
    made = engine_of(loaded, fault, tmp_path, budget=1 << 30)
    yield made
    fault.is_armed = False
    assert made.stop()


def job(name: str, tokens: list[int], **more: object) -> Job:
    marks = tuple(marks_of(tokens))
    return replace(Job(name, tokens_of(tokens), marks, Sampling(), 6), **more)  # type: ignore[arg-type]


def test_an_error_of_the_sampler_keeps_the_prompt(engine: EngineThread, fault: Fault) -> None:
    (failed,) = ask(engine, fault, job("bad", LONG, sampling=Sampling(temperature=1, min_p=7)))
    assert isinstance(failed.last, Failed)
    (good,) = ask(engine, fault, job("good", LONG))
    assert good.cached >= len(LONG) - 3  # where the mark of the prompt's end stands


HELD: dict[str, Any] = {"grammar": Grammar("start: /[ -~]{1,40}/", "start: /[ -~]{1,40}/")}
THINKING: dict[str, Any] = {
    "markers": Markers(("<think>", "</think>"), (), tokens_of([17, 18]), in_reasoning=True),
    "thinking_budget": 4,
}


@pytest.mark.parametrize(
    ("call", "n", "more"),
    [
        ("matcher.take", 2, HELD),
        ("matcher.mask", 2, HELD),
        ("detokenizer.add", 2, THINKING),
        ("sink", 14, {}),
    ],
    ids=["grammar", "mask", "tokenizer", "sink"],
)
def test_an_error_in_the_middle_of_a_reply_keeps_the_prompt(
    engine: EngineThread, fault: Fault, call: str, n: int, more: dict[str, Any]
) -> None:
    fault.only, fault.at, fault.is_armed = call, n, True
    (failed,) = ask(engine, fault, job("failing", LONG, **more))
    assert isinstance(failed.last, Failed)
    (good,) = ask(engine, fault, job("good", LONG))
    assert good.cached >= len(LONG) - 3  # where the mark of the prompt's end stands


def test_an_error_of_the_model_goes_back_to_the_turn_before(
    engine: EngineThread, fault: Fault
) -> None:
    (first,) = ask(engine, fault, job("first", LONG))
    after = LONG + first.reply + words(2, 200)
    fault.only, fault.at, fault.is_armed = "state.settle", 3, True
    (failed,) = ask(engine, fault, job("failed", after))
    assert isinstance(failed.last, Failed)
    (again,) = ask(engine, fault, job("again", after))
    assert again.cached == len(LONG) + len(first.reply)


def test_a_reply_that_cannot_be_filed_is_told_all_the_same(
    engine: EngineThread, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    fault.only, fault.at, fault.is_armed = "cache.commit", 1, True
    (told,) = ask(engine, fault, job("told", LONG))
    assert isinstance(told.last, Ended) and len(told.reply) == 6
    assert [r.getMessage() for r in caplog.records if r.exc_info] == ["job=told failed"]
    (again,) = ask(engine, fault, job("again", LONG))
    assert again.reply == told.reply


def test_a_sink_that_always_fails_ends_its_own_job(engine: EngineThread, fault: Fault) -> None:
    def refuse(_: Output) -> None:
        raise ValueError("nobody listens")

    engine.submit(job("deaf", LONG), refuse)
    (other,) = ask(engine, fault, job("other", words(3, 40)))
    assert isinstance(other.last, Ended)
    while engine.stats()["jobs"]:
        pass


def test_a_fault_while_putting_right_drops_the_cache_but_not_the_others(
    engine: EngineThread, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    (cold,) = ask(engine, fault, job("cold", LONG))
    fault.also, fault.only, fault.at, fault.is_armed = "cache.mend", "state.settle", 2, True
    one, two = ask(engine, fault, job("one", words(4, 90)), job("two", words(5, 90), max_tokens=9))
    assert sorted(type(t.last).__name__ for t in (one, two)) == ["Ended", "Failed"]
    assert "the cache in memory was dropped" in caplog.text
    again, _ = ask(engine, fault, job("again", LONG), job("other", words(5, 90)))
    assert again.reply == cold.reply
    assert engine.health().why is None


def test_a_call_that_fails_says_so_and_others_go_on(engine: EngineThread) -> None:
    with pytest.raises(EngineError, match="KeyError"):
        engine.call(lambda: {}["x"]).result(WAIT_S)
    assert engine.call(lambda: 7).result(WAIT_S) == 7


def test_a_call_during_a_long_step_is_told_to_come_again(engine: EngineThread) -> None:
    go_on = threading.Event()
    step = engine.call(go_on.wait)
    engine.answer_s = 0.01
    with pytest.raises(Overloaded, match="present step"):
        engine.stats()
    go_on.set()
    step.result(WAIT_S)
    engine.answer_s = WAIT_S
    assert engine.stats()["jobs"] == 0


def test_an_engine_that_has_died_says_so_and_nobody_waits(
    loaded: LoadedModel, fault: Fault, tmp_path: Path
) -> None:
    engine = engine_of(loaded, fault, tmp_path, budget=1 << 30)
    fault.only, fault.at, fault.error, fault.is_armed = "sink", 8, Fatal, True
    told: queue.SimpleQueue[Output] = queue.SimpleQueue()
    waiting = [job(f"{n}", words(n, 200), max_tokens=10_000) for n in range(3)]
    for j in waiting:
        engine.submit(j, lambda o: fault.around("sink", lambda: told.put(o)))
    outputs = [told.get(timeout=WAIT_S)]
    while sum(isinstance(o, Failed) for o in outputs) < len(waiting):
        outputs.append(told.get(timeout=WAIT_S))
    why = engine.health().why
    assert why is not None and "Fatal" in why
    engine.submit(job("late", LONG), told.put)
    assert isinstance(told.get_nowait(), Failed)
    with pytest.raises(EngineError, match="ended"):
        engine.call(lambda: 7).result(0)
    with pytest.raises(EngineError, match="ended"):
        engine.stats()
    engine.cancel("late")
    assert engine.stop()


@pytest.mark.parametrize("call", ["cache.lease", "cache.commit", "sink"])
def test_a_job_in_whose_hands_the_engine_dies_is_told(
    loaded: LoadedModel, fault: Fault, tmp_path: Path, call: str
) -> None:
    engine = engine_of(loaded, fault, tmp_path, budget=1 << 30)
    fault.error, fault.only, fault.is_armed = Fatal, call, True
    fault.at = 18 if call == "sink" else 1  # the last thing that the sink is told
    (turn,) = ask(engine, fault, job("last", LONG))
    assert isinstance(turn.last, Failed) and "Fatal" in turn.last.error.message
    assert engine.stop()


def test_a_stop_does_not_wait_for_a_step_that_never_ends(
    loaded: LoadedModel, fault: Fault, tmp_path: Path
) -> None:
    engine = engine_of(loaded, fault, tmp_path, budget=1 << 30)
    go_on = threading.Event()
    engine.call(go_on.wait)
    assert not engine.stop(grace_s=-0.49)
    go_on.set()
    assert engine.stop()


def test_who_asks_while_the_engine_stops_is_told(
    loaded: LoadedModel, fault: Fault, tmp_path: Path
) -> None:
    engine = engine_of(loaded, fault, tmp_path, budget=1 << 30)
    assert engine.stop()
    told: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine.submit(job("late", LONG), told.put)
    last = told.get_nowait()
    assert isinstance(last, Failed) and isinstance(last.error, Overloaded)
    assert engine.health().why is None


def test_a_large_job_begins_although_small_ones_keep_coming(
    loaded: LoadedModel, fault: Fault, tmp_path: Path
) -> None:
    small, large = 40, 400
    room = bytes_at(loaded.model, 32)
    budget = room(large + 40) * WRITE_SHARE // (WRITE_SHARE - 1) + WRITE_SHARE  # and the disk's
    engine = engine_of(loaded, fault, tmp_path, budget=budget)
    order: queue.SimpleQueue[str] = queue.SimpleQueue()
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def sink(name: str, output: Output) -> None:
        if isinstance(output, Leased):
            order.put(name)
        elif isinstance(output, Ended):
            ended.put(name)

    def submit(name: str, n: int, seed: int) -> None:
        engine.submit(job(name, words(seed, n), max_tokens=20), lambda o: sink(name, o))

    for n in range(3):
        submit(f"small {n}", small, 10 + n)
    submit("large", large, 1)
    n_ended = 0
    for n in range(3, 24):
        submit(f"small {n}", small, 10 + n)
        ended.get(timeout=WAIT_S)
        n_ended += 1
    while n_ended < 25:
        ended.get(timeout=WAIT_S)
        n_ended += 1
    begun = [order.get_nowait() for _ in range(25)]
    assert begun.index("large") <= 3 + 8 + 1
    assert engine.stop()
