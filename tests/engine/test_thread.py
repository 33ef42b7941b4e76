"""The engine's thread: fair turns, cancellation, errors that end one job only."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zoo
from diskfiles import HangingFiles

from everwarm.cache.cache import Cache
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.tier import DiskTier
from everwarm.config import Settings
from everwarm.engine.parts import EngineParts, open_parts
from everwarm.engine.state import ModelState, bytes_at
from everwarm.engine.thread import EngineThread
from everwarm.job import Ended, Job, Leased, Output, Prefilled, Token, Waits
from everwarm.request import Sampling
from everwarm.tokens import tokens_of

WAIT_S = 60


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[EngineThread]:
    path = tmp_path_factory.mktemp("models") / "llama"
    zoo.save("llama", path, smollm2)
    thread = EngineThread.start(str(path), Settings(prefill_step=64, disk=False))
    yield thread
    thread.stop()
    shutil.rmtree(path)


def job(name: str, start: int, n: int, max_tokens: int = 4) -> Job:
    tokens = tokens_of(10 + (start + i * 7) % 4000 for i in range(n))
    return Job(name, tokens, (), Sampling(), max_tokens)


def until(outputs: queue.SimpleQueue[Output], kind: type[Output]) -> list[Output]:
    got: list[Output] = []
    while not got or not isinstance(got[-1], (kind, Ended)):
        got.append(outputs.get(timeout=WAIT_S))
    return got


def test_short_request_is_answered_during_a_long_prefill(engine: EngineThread) -> None:
    order: list[str] = []
    done: queue.SimpleQueue[Output] = queue.SimpleQueue()

    def note(name: str, output: Output) -> None:
        order.append(f"{name} {type(output).__name__}")
        if isinstance(output, Ended):
            done.put(output)

    engine.submit(job("long", 1, 4000), lambda o: note("long", o))
    engine.submit(job("short", 2, 20), lambda o: note("short", o))
    done.get(timeout=WAIT_S)
    done.get(timeout=WAIT_S)
    assert order.index("short Token") < order.index("long Token")


def test_cancelled_prefill_is_continued(engine: EngineThread) -> None:
    outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine.submit(job("first", 3, 6000), outputs.put)
    until(outputs, Prefilled)
    engine.cancel("first")
    ended = until(outputs, Ended)[-1]
    assert isinstance(ended, Ended) and ended.reason == "cancelled"
    engine.submit(job("again", 3, 6000), outputs.put)
    leased = until(outputs, Leased)[-1]
    assert isinstance(leased, Leased)
    assert leased.cached_tokens == ended.prefilled_tokens > 0
    until(outputs, Ended)


def test_cancelled_decode_stops_within_a_token(engine: EngineThread) -> None:
    outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine.submit(job("talk", 5, 30, max_tokens=100_000), outputs.put)
    until(outputs, Token)
    engine.cancel("talk")
    rest = until(outputs, Ended)
    assert isinstance(rest[-1], Ended) and rest[-1].completion_tokens < 1000


def test_who_waits_for_memory_is_told_how_much(tmp_path: Path, smollm2: Path) -> None:
    zoo.save("llama", tmp_path / "model", smollm2)
    talk, other = job("talk", 1, 30, max_tokens=2000), job("other", 2, 2000, max_tokens=8)
    asked = [talk, other]

    def open_(wake: Callable[[], None]) -> EngineParts:
        parts = open_parts(str(tmp_path / "model"), Settings(prefill_step=64, disk=False), wake)
        model = parts.loaded.model
        room = bytes_at(model, 64)
        budget = max(room(len(j.tokens) + j.max_tokens) for j in asked) * 3 // 2
        cache = Cache(lambda: ModelState(model, width=0), budget=budget, bytes_at=room)
        return replace(parts, cache=cache)

    told(asked, EngineThread(open_), "waits for memory: needs ")


def test_who_waits_for_a_lane_is_told_why(tmp_path: Path, smollm2: Path) -> None:
    zoo.save("llama", tmp_path / "model", smollm2)
    settings = Settings(prefill_step=64, disk=False)

    def open_(wake: Callable[[], None]) -> EngineParts:
        return open_parts(str(tmp_path / "model"), settings, wake)

    asked = [job("talk", 1, 30, max_tokens=2000), job("other", 2, 20)]
    engine = EngineThread(open_, Settings(least_tokens_per_s=1e9))
    told(asked, engine, "waits for another reply to end: ")


def told(asked: list[Job], engine: EngineThread, why: str) -> None:
    """The second job waits while the first one runs, hears why, and begins behind it."""
    engine.begin()
    outputs: list[queue.SimpleQueue[Output]] = [queue.SimpleQueue(), queue.SimpleQueue()]
    try:
        engine.submit(asked[0], outputs[0].put)
        until(outputs[0], Token)
        engine.submit(asked[1], outputs[1].put)
        waits = outputs[1].get(timeout=WAIT_S)
        assert isinstance(waits, Waits) and waits.why.startswith(why)
        engine.cancel(asked[0].id)
        assert until(outputs[1], Ended)
    finally:
        assert engine.stop()


def test_one_job_fails_and_the_engine_lives_on(engine: EngineThread) -> None:
    outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
    broken = Job("broken", tokens_of([1, 2, 3]), (), Sampling(temperature=1, min_p=7), 4)
    engine.submit(broken, outputs.put)
    first = outputs.get(timeout=WAIT_S)
    while type(first).__name__ != "Failed":
        first = outputs.get(timeout=WAIT_S)
    engine.submit(job("fine", 8, 20), outputs.put)
    assert isinstance(until(outputs, Ended)[-1], Ended)
    assert engine.stats()["jobs"] == 0


def test_a_stop_says_when_a_disk_that_hangs_is_left_behind(tmp_path: Path, smollm2: Path) -> None:
    zoo.save("llama", tmp_path / "model", smollm2)
    files = HangingFiles()

    def open_(wake: Callable[[], None]) -> EngineParts:
        parts = open_parts(str(tmp_path / "model"), Settings(prefill_step=64, disk=False), wake)
        tier = DiskTier(DiskStore.open(tmp_path / "cache", files=files), bytes(32), wake)
        cache = Cache(lambda: ModelState(parts.loaded.model), budget=1 << 30, tier=tier)
        return replace(parts, cache=cache, tier=tier)

    engine = EngineThread(open_)
    engine.begin()
    files.hangs_at = "write"
    outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine.submit(job("one", 1, 100), outputs.put)
    assert until(outputs, Ended)
    assert files.is_asked.wait(WAIT_S)
    assert not engine.stop(0.2)
    files.answers.set()
