"""Where the machine is short of memory, idle conversations go to disk before a job begins."""

from __future__ import annotations

import functools
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from diskfiles import HangingFiles, QuickFiles

from everwarm.cache.cache import Cache
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.files import Files
from everwarm.cache.disk.tier import DiskTier
from everwarm.cache.relief import relieve
from everwarm.engine.memory_pressure import Pressure
from everwarm.engine.model import LoadedModel, load_model
from everwarm.engine.parts import EngineParts
from everwarm.engine.pressure_relief import REST_S, PressureRelief
from everwarm.engine.state import ModelState, bytes_at
from everwarm.engine.thread import EngineThread
from everwarm.job import Ended, Job, Leased, Output
from everwarm.request import Sampling
from everwarm.testing import ORACLES, OraclePiece, OracleRun, OracleState
from everwarm.tokens import Mark, tokens_of

WAIT_S = 60
EVERYTHING = 1 << 60


def job(name: str, start: int, n: int, max_tokens: int = 4) -> Job:
    tokens = tokens_of(10 + (start + i * 7) % 4000 for i in range(n))
    return Job(name, tokens, (Mark(40, "system"), Mark(n - 3, "prompt")), Sampling(), max_tokens)


def until(outputs: queue.SimpleQueue[Output], kind: type[Output]) -> list[Output]:
    got: list[Output] = []
    while not got or not isinstance(got[-1], (kind, Ended)):
        got.append(outputs.get(timeout=WAIT_S))
    return got


class Machine:
    """Says what it is told to, and a clock that a test may put forward."""

    def __init__(self) -> None:
        self.says = Pressure()
        self.ahead_s = 0.0
        self.asked = 0

    def read(self) -> Pressure:
        self.asked += 1
        return self.says

    def now(self) -> float:
        return time.monotonic() + self.ahead_s


class Engine:
    """An engine on a machine whose memory the test decides. `files` None: no disk."""

    def __init__(self, loaded: LoadedModel, home: Path, files: Files | None) -> None:
        self.machine = Machine()

        def open_(wake: Callable[[], None]) -> EngineParts:
            tier = None
            if files is not None:
                tier = DiskTier(DiskStore.open(home, files=files), bytes(32), wake)
            room = bytes_at(loaded.model, 64)
            self.cache = Cache(
                lambda: ModelState(loaded.model), budget=1 << 28, bytes_at=room, tier=tier
            )
            return EngineParts(loaded, self.cache, tier, 64, self.machine.read)

        self.thread = EngineThread(open_)
        self.thread.begin()
        self.thread._relief._clock = self.machine.now

    def ask(self, asked: Job) -> tuple[Leased, Ended]:
        outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
        self.thread.submit(asked, outputs.put)
        got = until(outputs, Ended)
        leased, ended = got[0], got[-1]
        assert isinstance(leased, Leased) and isinstance(ended, Ended)
        return leased, ended

    def at_rest(self) -> None:
        """Wait until the disk has everything."""
        tier = self.cache.tier
        assert tier is not None
        end = time.monotonic() + WAIT_S
        while not self.thread.call(lambda: tier.is_idle).result(WAIT_S):
            assert time.monotonic() < end
            time.sleep(0.005)

    def stats(self) -> dict[str, Any]:
        return self.thread.stats()

    def short(self, level: Any = "critical", missing: int | None = EVERYTHING) -> None:
        """From now on the machine is short of memory. What was said before has been forgotten."""
        self.machine.says = Pressure(level, missing, "told so")
        self.machine.ahead_s += 2 * REST_S


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Callable[[str], LoadedModel]:
    """Loads each family once."""

    @functools.cache
    def load(family: str) -> LoadedModel:
        path = tmp_path_factory.mktemp(family) / "model"
        zoo.save(family, path, smollm2)
        return load_model(str(path), model_id=None, context_length=None)

    return load


@pytest.fixture(params=["llama", "qwen3_5", "gemma3_text"])
def engine(request: Any, tmp_path: Path, models: Callable[[str], LoadedModel]) -> Iterator[Engine]:
    made = Engine(models(request.param), tmp_path, QuickFiles())
    yield made
    assert made.thread.stop(2)


def test_idle_conversations_leave_memory_and_come_back_from_disk(engine: Engine) -> None:
    for n in range(3):
        engine.ask(job(f"first {n}", 100 * n, 400))
    engine.at_rest()
    held = engine.stats()["cache_bytes"]
    engine.short("warning")
    engine.ask(job("another", 901, 40))
    after = engine.stats()
    assert after["states"] == 1 and after["cache_bytes"] < held / 3
    assert after["memory_given_back_bytes"] >= held
    engine.machine.says = Pressure()
    engine.machine.ahead_s += 2 * REST_S
    for n in range(3):
        leased, _ = engine.ask(job(f"again {n}", 100 * n, 420))
        assert leased.cached_from == "disk" and leased.cached_tokens >= 397


def test_what_is_not_on_disk_yet_is_written_before_it_is_dropped(engine: Engine) -> None:
    """The job waits for the disk; nothing that was read is read again afterwards."""
    engine.ask(job("first", 100, 900))
    engine.short("critical")
    engine.ask(job("another", 901, 40))
    assert engine.stats()["states"] == 1
    engine.machine.says = Pressure()
    engine.machine.ahead_s += 2 * REST_S
    leased, _ = engine.ask(job("again", 100, 920))
    assert leased.cached_from == "disk" and leased.cached_tokens >= 897


def test_what_the_job_goes_on_from_stays(engine: Engine) -> None:
    engine.ask(job("first", 100, 400))
    engine.at_rest()
    engine.short("critical")
    leased, _ = engine.ask(job("next", 100, 440))
    assert leased.cached_from in ("live", "rewind") and leased.cached_tokens >= 397


def test_no_more_is_dropped_than_is_missing(engine: Engine) -> None:
    for n in range(4):
        engine.ask(job(f"first {n}", 100 * n, 400))
    engine.at_rest()
    one = engine.stats()["cache_bytes"] // 4
    engine.short("warning", missing=one)
    engine.ask(job("another", 901, 40))
    assert engine.stats()["states"] >= 3
    assert one <= engine.stats()["memory_given_back_bytes"] < 3 * one


def test_without_pressure_nothing_is_dropped(engine: Engine) -> None:
    engine.ask(job("first", 100, 400))
    engine.at_rest()
    engine.ask(job("another", 901, 40))
    assert engine.machine.asked and engine.stats()["states"] == 2
    assert engine.stats()["memory_given_back_bytes"] == 0


def test_a_disk_that_hangs_holds_a_job_up_for_seconds_only(
    tmp_path: Path, models: Callable[[str], LoadedModel]
) -> None:
    files = HangingFiles()
    engine = Engine(models("llama"), tmp_path, files)
    engine.thread._grace_s = 0.1
    files.hangs_at = "write"
    engine.ask(job("first", 100, 400))
    assert files.is_asked.wait(WAIT_S)
    engine.short("warning")
    began = time.monotonic()
    engine.ask(job("another", 901, 40))
    assert 4 < time.monotonic() - began < 20
    assert engine.stats()["states"] == 2, "what the disk does not have stays, short of an emergency"
    engine.short("critical")
    engine.ask(job("third", 1801, 40))
    assert engine.stats()["states"] == 1
    files.answers.set()
    engine.thread.stop(1)


def test_an_emergency_drops_what_no_disk_has(
    tmp_path: Path, models: Callable[[str], LoadedModel]
) -> None:
    engine = Engine(models("llama"), tmp_path, None)
    engine.ask(job("first", 1, 200))
    engine.short("warning")
    engine.ask(job("second", 5, 200))
    assert engine.stats()["states"] == 2
    engine.short("critical", None)
    engine.ask(job("third", 9, 200))
    assert engine.stats()["states"] == 1
    assert engine.thread.stop()


def test_a_running_state_is_never_dropped(engine: Engine) -> None:
    talking: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine.thread.submit(job("long", 5, 300, max_tokens=200), talking.put)
    until(talking, Leased)
    engine.short("critical")
    engine.ask(job("another", 901, 40))
    ended = until(talking, Ended)[-1]
    assert isinstance(ended, Ended) and ended.completion_tokens > 1


class Unwritable(OracleState):
    """A state of a class that cannot be written down."""

    def checkpoint_out(self, piece: OraclePiece, at: int) -> None:
        return None


def test_a_state_that_no_disk_takes_is_waited_for_once(tmp_path: Path) -> None:
    tier = DiskTier(DiskStore.open(tmp_path, files=QuickFiles()), bytes(32), lambda: None)
    cache = Cache(lambda: Unwritable(ORACLES["hybrid"]), budget=1 << 24, tier=tier)
    run = OracleRun(cache, tokens_of(range(1, 400)), ())
    while not run.over:
        run.step()
    machine = Machine()
    machine.says = Pressure("warning", EVERYTHING, "told so")
    relief = PressureRelief(cache, machine.read, lambda: 100.0)
    until_s = time.monotonic() + WAIT_S
    n_waits = 0
    while n_waits < 5 and not relief.may_begin([job("x", 1, 10)]):
        n_waits += 1
        while not tier.is_idle:
            tier.step()
            assert time.monotonic() < until_s
    assert n_waits <= 1
    assert tier.close(5)


def test_the_machine_is_asked_once_a_second(engine: Engine) -> None:
    relief = PressureRelief(engine.cache, engine.machine.read, lambda: 50.0)
    before = engine.machine.asked
    for _ in range(100):
        assert relief.may_begin([job("x", 1, 10)])
    assert engine.machine.asked == before + 1


def test_relief_counts_what_is_freed(engine: Engine) -> None:
    engine.ask(job("first", 100, 400))
    engine.at_rest()

    def drop() -> tuple[int, int, int]:
        before = engine.cache.nbytes
        found = relieve(engine.cache, EVERYTHING, [], may_lose=False)
        return before, engine.cache.nbytes, found.freed

    before, after, freed = engine.thread.call(drop).result(WAIT_S)
    assert before > 0 and after == 0 and freed == before
