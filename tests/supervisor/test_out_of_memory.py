"""A real engine process dies of Metal's out-of-memory; the next one gets less, and says so."""

from __future__ import annotations

import logging
import queue
import time
from pathlib import Path

import pytest
import zoo

from everwarm.config import Settings
from everwarm.errors import EngineDied
from everwarm.job import Ended, Failed, Job, ModelInfo, Output, Token
from everwarm.request import Sampling
from everwarm.supervisor.engine_process import EngineProcess
from everwarm.tokens import tokens_of

WAIT_S = 60
BUDGET = 1 << 26
INFO = ModelInfo("not-loaded-yet", 100, 100, 0, 0, "llama")
SUPPORT = Path(__file__).parent.parent / "support"


def job(name: str, n: int, max_tokens: int) -> Job:
    return Job(name, tokens_of(10 + i * 7 % 4000 for i in range(n)), (), Sampling(), max_tokens)


def until(outputs: queue.SimpleQueue[Output], *kinds: type[Output]) -> Output:
    while not isinstance(output := outputs.get(timeout=WAIT_S), kinds):
        pass
    return output


def test_the_next_engine_gets_less_and_health_says_why(
    tmp_path: Path,
    smollm2: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    zoo.save("llama", tmp_path / "model", smollm2)
    abort = tmp_path / "abort"
    monkeypatch.setenv("EVERWARM_ABORT_FILE", str(abort))
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    settings = Settings(prefill_step=64, disk=False, memory_budget=BUDGET)
    engine = EngineProcess(str(tmp_path / "model"), settings, INFO, "engine_out_of_memory")
    engine.begin()
    try:
        engine.wait_ready(WAIT_S)
        assert engine.health().budget_bytes == BUDGET and engine.health().lowered_why == ""
        outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
        engine.submit(job("long", 100, 100_000), outputs.put)
        until(outputs, Token)
        with caplog.at_level(logging.ERROR):
            abort.touch()
            failed = until(outputs, Failed, Ended)
        assert isinstance(failed, Failed) and isinstance(failed.error, EngineDied)
        engine.submit(job("next", 100, 4), outputs.put)
        assert isinstance(until(outputs, Failed, Ended), Ended)
        end = time.monotonic() + WAIT_S
        while engine.health().budget_bytes == 0 and time.monotonic() < end:
            time.sleep(0.05)
        health = engine.health()
        assert health.budget_bytes == engine.stats()["cache_budget_bytes"] == BUDGET * 3 // 4
        assert "Insufficient Memory" in health.last_words
        assert "ran out of memory" in health.lowered_why and "50 MB" in health.lowered_why
        assert "memory=short" in caplog.text
    finally:
        assert engine.stop()
