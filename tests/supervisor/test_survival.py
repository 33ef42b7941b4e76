"""What outlives an engine, and that no engine outlives its server."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_jobs import WAIT_S, Heard, begun, eventually, is_running, job, pid_of

from everwarm.config import Settings
from everwarm.job import Ended, Failed, Leased, Token


def test_the_next_engine_is_warm_from_disk(model: Path, tmp_path: Path) -> None:
    engine = begun(model, Settings(prefill_step=64, home=tmp_path))
    try:
        cold = Heard(engine, job("first", 1, 3000))
        assert isinstance(cold.end(), Ended)
        assert eventually(lambda: bool(engine.stats()["disk_bytes"]), 20)
        time.sleep(1)
        os.kill(pid_of(engine), signal.SIGKILL)
        warm = Heard(engine, job("again", 1, 3000))
        if isinstance(warm.end(), Failed):  # it was sent before the death was seen
            warm = Heard(engine, job("again", 1, 3000))
            assert isinstance(warm.end(), Ended)
        leased = warm.outputs[0]
        assert isinstance(leased, Leased) and leased.cached_from == "disk"
        assert leased.cached_tokens > 2900 and warm.text() == cold.text()
        assert engine.health().restarts == 1
    finally:
        assert engine.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_ends_with_its_server_and_writes_what_it_can(
    model: Path, tmp_path: Path, number: int
) -> None:
    front = subprocess.Popen(
        [sys.executable, "-m", "front", str(model), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert front.stdout is not None
    pid = int(front.stdout.readline())
    assert front.stdout.readline() == "token\n"
    front.send_signal(number)
    front.wait(WAIT_S)
    assert eventually(lambda: not is_running(pid), 15)
    front.stdout.close()
    engine = begun(model, Settings(prefill_step=64, home=tmp_path))
    try:
        heard = Heard(engine, job("again", 1, 3000))
        assert isinstance(heard.end(), Ended)
        leased = heard.outputs[0]
        assert isinstance(leased, Leased) and leased.cached_tokens > 2900
    finally:
        assert engine.stop()


def test_a_server_that_was_stopped_for_a_while_finds_its_engine_alive(
    model: Path, tmp_path: Path
) -> None:
    """Ctrl-Z: the engine runs on in its own session, and is not taken for one that hangs."""
    front = subprocess.Popen(
        [sys.executable, "-m", "front", str(model), str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"EVERWARM_TEST_HANG": "2"},
        text=True,
    )
    assert front.stdout is not None
    pid = int(front.stdout.readline())
    assert front.stdout.readline() == "token\n"
    front.send_signal(signal.SIGSTOP)
    time.sleep(6)
    front.send_signal(signal.SIGCONT)
    before = time.monotonic()
    while time.monotonic() < before + 3:
        assert front.stdout.readline() == "token\n"
    assert is_running(pid)
    front.kill()
    front.wait(WAIT_S)
    front.stdout.close()
    assert eventually(lambda: not is_running(pid), 15)


def test_an_engine_that_aborts_writes_no_core(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold all conversations, and the death would not be seen before it is written."""
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        engine = begun(model, Settings(disk=False))
        heard = Heard(engine, job("talk", 1, 30, 100_000))
        heard.until(Token)
        os.kill(pid_of(engine), signal.SIGABRT)
        assert isinstance(heard.end(2), Failed) and not list(tmp_path.iterdir())
        assert engine.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def test_a_job_is_told_nothing_twice_when_the_server_stops(model: Path) -> None:
    engine = begun(model, Settings(disk=False))
    heard = Heard(engine, job("talk", 1, 30, 100_000))
    heard.until(Token)
    assert engine.stop()
    last = heard.end(1)
    assert isinstance(last, Ended) and last.reason == "cancelled" and heard.is_over()
