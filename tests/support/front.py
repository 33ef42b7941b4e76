"""A server's place in a process of its own: starts an engine, lets a job run, and waits.

`python -m front MODEL HOME`: prints the engine's process id, and a line for each token.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from engine_jobs import INFO, job

from everwarm.config import Settings
from everwarm.job import Output, Token
from everwarm.supervisor.engine_process import EngineProcess


def main(model: str, home: str) -> None:
    hang_timeout = int(os.environ.get("EVERWARM_TEST_HANG", "60"))
    settings = Settings(prefill_step=64, home=Path(home), hang_timeout=hang_timeout)
    engine = EngineProcess(model, settings, INFO)
    engine.begin()
    engine.wait_ready(90)

    def tell(output: Output) -> None:
        if isinstance(output, Token):
            print("token", flush=True)

    engine.submit(job("read", 1, 3000, 100_000), tell)
    run = engine._supervisor._run
    assert run is not None
    print(run.process.pid, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
