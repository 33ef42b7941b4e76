"""Jobs for engine processes, and what came of them."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from pathlib import Path

from everwarm.config import Settings
from everwarm.job import Ended, Failed, Job, ModelInfo, Output, Token
from everwarm.request import Sampling
from everwarm.supervisor.engine_process import EngineProcess
from everwarm.tokens import tokens_of

WAIT_S = 90
INFO = ModelInfo("not-loaded-yet", 100, 100, 0, 0, "llama")


def job(name: str, start: int, n: int, max_tokens: int = 4) -> Job:
    tokens = tokens_of(10 + (start + i * 7) % 4000 for i in range(n))
    return Job(name, tokens, (), Sampling(), max_tokens)


class Heard:
    """What one job was told."""

    def __init__(self, engine: EngineProcess, asked: Job) -> None:
        self._outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
        self.outputs: list[Output] = []
        engine.submit(asked, self._outputs.put)

    def until(self, kind: type[Output], timeout_s: float = WAIT_S) -> Output:
        """The first output of this kind from here on, or the last one."""
        while True:
            self.outputs.append(self._outputs.get(timeout=timeout_s))
            if isinstance(self.outputs[-1], (kind, Ended, Failed)):
                return self.outputs[-1]

    def end(self, timeout_s: float = WAIT_S) -> Output:
        return self.until(Ended, timeout_s)

    def is_over(self) -> bool:
        """Nothing was said behind the end."""
        return self._outputs.empty() and isinstance(self.outputs[-1], (Ended, Failed))

    def text(self) -> list[int]:
        return [o.id for o in self.outputs if isinstance(o, Token)]


def begun(model: Path, settings: Settings, module: str = "broken_engine") -> EngineProcess:
    """An engine that takes jobs."""
    engine = EngineProcess(str(model), settings, INFO, module)
    engine.begin()
    engine.wait_ready(WAIT_S)
    return engine


def pid_of(engine: EngineProcess) -> int:
    run = engine._supervisor._run
    assert run is not None
    return run.process.pid


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(is_so: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    """Whether it became so in this time."""
    until = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
