"""Does memory stay what was promised? Eight sessions in a budget of three, on a slow disk.

    python benchmarks/memory_promise.py [MODEL] [--turns N] [--tokens N] [--json FILE]

Sessions take turns, two at a time. MLX's own peak is held against budget + weights + what one chunk
of prefill takes besides its rows; the cache's account is looked at behind every turn.
"""

from __future__ import annotations

import argparse
import json
import queue
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from everwarm.cache.disk.files import OsFiles
from everwarm.config import Settings
from everwarm.engine.model import load_model
from everwarm.engine.parts import EngineParts, open_parts
from everwarm.engine.state import ModelState, bytes_at
from everwarm.engine.thread import EngineThread
from everwarm.job import Ended, Failed, Job, Output
from everwarm.request import Sampling
from everwarm.tokens import Mark, tokens_of

SESSIONS, ROOM_FOR, CHUNK = 8, 3, 128
SLOW_BYTES_PER_S = 3e6
DEFAULT = Path.home() / ".everwarm/models/SmolLM2-135M-Instruct"


class SlowFiles(OsFiles):
    """A disk that writes 3 MB a second."""

    def write(self, fd: int, views: Sequence[memoryview]) -> None:
        time.sleep(sum(v.nbytes for v in views) / SLOW_BYTES_PER_S)
        super().write(fd, views)


def activations(model: Any) -> int:
    """What one chunk takes at its peak, beyond the rows that stay."""
    state = ModelState(model)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    state.read(tokens_of(range(100, 100 + CHUNK)))
    state.settle()
    return int(mx.get_peak_memory()) - before - state.nbytes


def bytes_of(model: str, rows: int) -> int:
    """What one session may take."""
    return bytes_at(load_model(model, model_id=None, context_length=None).model, CHUNK)(rows)


def ask(engine: EngineThread, job: Job) -> queue.SimpleQueue[Output]:
    out: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine.submit(job, out.put)
    return out


def wait(out: queue.SimpleQueue[Output]) -> str:
    while not isinstance(last := out.get(timeout=300), (Ended, Failed)):
        pass
    return "failed" if isinstance(last, Failed) else last.reason


def prompt(session: int, turn: int, tokens: int) -> Job:
    n = tokens + 40 * turn
    own = tokens_of(100 + (session * 977 + i * 31) % 4000 for i in range(n))
    marks = (Mark(40, "system"), Mark(n - 3, "prompt"))
    return Job(f"s{session}t{turn}", own, marks, Sampling(), 12)


def measured(model: str, turns: int, tokens: int, home: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {"account": 0.0}
    made: list[EngineParts] = []

    def parts(wake: Any) -> EngineParts:
        budget = ROOM_FOR * bytes_of(model, tokens + 40 * turns + 12)
        settings = Settings(home=home, memory_budget=budget, prefill_step=CHUNK)
        made.append(open_parts(model, settings, wake, SlowFiles()))
        seen["activations"] = activations(made[0].loaded.model)
        seen["budget"] = budget
        return made[0]

    engine = EngineThread(parts)
    engine.begin()
    memory = made[0].cache.memory
    mx.clear_cache()
    seen["weights"] = engine.model.nbytes
    mx.reset_peak_memory()

    def look() -> None:
        seen["account"] = max(seen["account"], memory.account().total / memory.budget)

    ends = []
    for turn in range(turns):
        for session in range(0, SESSIONS, 2):
            outs = [ask(engine, prompt(session + k, turn, tokens)) for k in (0, 1)]
            for out in outs:
                ends.append(wait(out))
                engine.call(look).result(60)
    seen["peak"] = int(mx.get_peak_memory())
    seen["ends"] = {e: ends.count(e) for e in set(ends)}
    allowed = seen["budget"] + seen["weights"] + seen["activations"]
    engine.stop(1.0)
    return seen | {
        "sessions": SESSIONS, "peak_of_allowed": round(seen["peak"] / allowed, 4),
        "account_of_budget": round(seen["account"], 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(DEFAULT))
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=400, help="of each session's first prompt")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp())
    try:
        result = measured(args.model, args.turns, args.tokens, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
