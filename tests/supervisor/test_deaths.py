"""An engine that dies or hangs: who ran is told at once, who comes next is answered."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_jobs import Heard, begun, eventually, is_running, job, pid_of

from everwarm.config import Settings
from everwarm.errors import EngineDied, PromptRefused
from everwarm.job import Ended, Failed, Prefilled, Token
from everwarm.supervisor.dispatch import SOLITUDE_S
from everwarm.supervisor.engine_process import EngineProcess

HANG_S = 4
DEATHS = {
    "exit": "exit code 5",
    "leave": "exit code 0",
    "kill": "SIGKILL",
    "abort": "SIGABRT",
    "crash": "SIGSEGV",
    "thread": "exit code 70",
    "native": "SIGABRT",
    "fatal": "exit code 70",
    "garble": "packet cannot be read",
}
PROMPTS = itertools.count(100, 2)
"""Each death has prompts of its own: one that was there at two deaths has to run alone."""
HANGS = {"stopped": "no heartbeat", "deaf": "no heartbeat", "stuck": "step took"}


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[EngineProcess]:
    settings = Settings(prefill_step=64, disk=False, hang_timeout=HANG_S)
    process = begun(model, settings)
    yield process
    assert process.stop()


def reply(engine: EngineProcess, name: str, start: int) -> list[int]:
    heard = Heard(engine, job(name, start, 100, 20))
    assert isinstance(heard.end(), Ended)
    return heard.text()


def dies(engine: EngineProcess, fault: str, how: str, within_s: float) -> None:
    """Two jobs run, one of them ends the engine; both are told, and a third one is answered."""
    cold, own = reply(engine, "cold", 7), next(PROMPTS)
    neighbour = Heard(engine, job("neighbour", own, 30, 100_000))
    assert isinstance(neighbour.until(Token), Token)
    pid, restarts = pid_of(engine), engine.health().restarts
    culprit = Heard(engine, job(f"{fault}-{own}", own + 1, 30, 100_000))
    began = time.monotonic()
    for heard in (culprit, neighbour):
        last = heard.end()
        assert isinstance(last, Failed) and isinstance(last.error, EngineDied)
        assert how in last.error.message
    assert time.monotonic() - began < within_s
    assert eventually(lambda: not is_running(pid), 2)
    assert engine.health().restarts == restarts + 1
    assert reply(engine, "again", 7) == cold
    assert engine.health().state == "ready" and engine.health().why is None
    assert culprit.is_over() and neighbour.is_over()


@pytest.mark.parametrize("fault", DEATHS)
def test_a_death_is_told_within_two_seconds(engine: EngineProcess, fault: str) -> None:
    dies(engine, fault, DEATHS[fault], 2.5)


@pytest.mark.parametrize("fault", HANGS)
def test_a_hang_is_ended_within_its_bound(engine: EngineProcess, fault: str) -> None:
    dies(engine, fault, HANGS[fault], 60)


def test_the_last_words_are_kept(engine: EngineProcess) -> None:
    dies(engine, "native", "SIGABRT", 2.5)
    assert "Aborted" in engine.health().last_words
    dies(engine, "fatal", "70", 2.5)
    assert "Fatal" in engine.health().last_words


def test_a_call_in_flight_is_asked_of_the_next_engine(engine: EngineProcess) -> None:
    stuck = Heard(engine, job("stuck-1", 4, 30, 100_000))
    stuck.until(Prefilled)
    time.sleep(0.3)
    found: list[int | float | str] = []
    asking = threading.Thread(target=lambda: found.append(engine.stats()["jobs"]))
    asking.start()
    time.sleep(0.2)
    assert not found
    os.kill(pid_of(engine), signal.SIGKILL)
    assert isinstance(stuck.end(2), Failed)
    asking.join(60)
    assert found == [0]


def test_sigint_of_a_terminal_is_not_for_the_engine(engine: EngineProcess) -> None:
    heard = Heard(engine, job("talk", 5, 30, 1000))
    heard.until(Token)
    os.kill(pid_of(engine), signal.SIGINT)
    assert isinstance(heard.end(), Ended)
    assert os.getpgid(pid_of(engine)) != os.getpgid(0)


def test_an_engine_that_somebody_stops_is_started_again(engine: EngineProcess) -> None:
    heard = Heard(engine, job("talk", 5, 30, 100_000))
    heard.until(Token)
    os.kill(pid_of(engine), signal.SIGTERM)
    last = heard.end()
    assert isinstance(last, Failed) and isinstance(last.error, EngineDied)
    assert reply(engine, "next", 9)


def test_a_prompt_that_ends_three_engines_is_refused_and_no_other(engine: EngineProcess) -> None:
    for n in range(3):
        heard = Heard(engine, job(f"exit-{n}", 11, 40))
        last = heard.end()
        assert isinstance(last, Failed) and isinstance(last.error, EngineDied)
    refused = Heard(engine, job("harmless", 11, 40)).end(1)
    assert isinstance(refused, Failed) and isinstance(refused.error, PromptRefused)
    assert "3 times" in refused.error.message and refused.error.retry_after_s > 500
    assert reply(engine, "other", 12)


def test_a_suspect_gets_company_if_others_run_on(engine: EngineProcess) -> None:
    for n in range(2):
        Heard(engine, job(f"exit-{n}", 13, 40)).end()
    other = Heard(engine, job("other", 14, 30, 100_000))
    other.until(Token)
    began = time.monotonic()
    suspect = Heard(engine, job("harmless", 13, 40))
    behind = Heard(engine, job("behind", 15, 40))
    assert isinstance(suspect.end(), Ended) and isinstance(behind.end(), Ended)
    assert SOLITUDE_S - 1 < time.monotonic() - began < SOLITUDE_S + 5
    engine.cancel("other")
    assert isinstance(other.end(), Ended)


def test_nothing_is_left_behind_by_restarts(engine: EngineProcess) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/dev/fd")), threading.active_count()

    dies(engine, "kill", "SIGKILL", 2.5)
    before = held()
    for _ in range(3):
        dies(engine, "kill", "SIGKILL", 2.5)
    assert held() == before


def test_a_grammar_that_ends_the_engine_is_asked_once_and_no_job_is_blamed(
    engine: EngineProcess,
) -> None:
    for _ in range(3):
        restarts = engine.health().restarts
        heard = Heard(engine, job("innocent", 3, 40, 100_000))
        assert isinstance(heard.until(Token), Token)
        with pytest.raises(EngineDied):
            engine.check("abort")
        assert isinstance(heard.end(2), Failed)
        engine.wait_ready(90)
        assert engine.health().restarts == restarts + 1
    assert isinstance(Heard(engine, job("innocent", 3, 40)).end(), Ended)
