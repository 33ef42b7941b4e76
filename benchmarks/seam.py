"""What the way to an engine process costs, against the same engine on a thread of this process.

    python benchmarks/seam.py [MODEL] [--tokens 100000] [--turns 40] [--reply 400] [--out FILE]

Both engines hold the same conversation, and are asked in turns, so that a slow moment meets both.
*Turn*: from `submit` to the first token, where all but a few tokens are warm. *Token*: between the
first and the last token of a reply, per token. `cost` is the median of the pairs' differences, with
the middle half of them. Without MODEL: a tiny model, whose own time is short beside the seam's.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

import zoo  # noqa: E402

from everwarm.config import Settings  # noqa: E402
from everwarm.engine.thread import EngineThread  # noqa: E402
from everwarm.job import Ended, Engine, Failed, Job, ModelInfo, Output, Token  # noqa: E402
from everwarm.request import Sampling  # noqa: E402
from everwarm.supervisor.engine_process import EngineProcess  # noqa: E402
from everwarm.tokens import Tokens, tokens_of  # noqa: E402


class Side:
    """One engine with its own copy of the conversation."""

    def __init__(self, engine: Engine, tokens: Tokens[int]) -> None:
        self.engine, self.tokens = engine, tokens
        self.turns_ms: list[float] = []
        self.token_ms: list[float] = []
        self.n = 0

    def ask(self, n_new: int, max_tokens: int) -> tuple[float, float]:
        """One more turn: ms to the first token, and per token behind it."""
        self.n += 1
        self.tokens = self.tokens + tokens_of(10 + (self.n * 31 + i) % 4000 for i in range(n_new))
        times: list[float] = []
        ids: list[int] = []
        ended = threading.Event()

        def sink(output: Output) -> None:
            if isinstance(output, Token):
                times.append(time.perf_counter())
                ids.append(output.id)
            elif isinstance(output, (Ended, Failed)):
                assert isinstance(output, Ended), output
                ended.set()

        job = Job(f"{self.n}", self.tokens, (), Sampling(), max_tokens)
        began = time.perf_counter()
        self.engine.submit(job, sink)
        ended.wait()
        self.tokens = self.tokens + tokens_of(ids)
        per_token = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        return 1000 * (times[0] - began), 1000 * per_token


def middle(values: list[float]) -> dict[str, float]:
    low, mid, high = statistics.quantiles(values, n=4)
    return {"median": round(mid, 4), "low": round(low, 4), "high": round(high, 4)}


def ordered(sides: list[Side], n: int) -> list[Side]:
    """Who is first changes, so that being first costs both the same."""
    return sides if n % 2 else sides[::-1]


def measured(sides: list[Side], turns: int, reply: int) -> dict[str, Any]:
    thread, process = sides
    for _ in range(turns):
        for side in ordered(sides, len(thread.turns_ms)):
            side.turns_ms.append(side.ask(16, 2)[0])
    for _ in range(max(4, turns // 4)):
        for side in ordered(sides, len(thread.token_ms)):
            side.token_ms.append(side.ask(16, reply)[1])
    found: dict[str, Any] = {}
    for kind in ("turns_ms", "token_ms"):
        a, b = getattr(thread, kind), getattr(process, kind)
        cost = [y - x for x, y in zip(a, b, strict=True)]
        found[kind] = {"thread": middle(a), "process": middle(b), "cost": middle(cost)}
    return found


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model", type=Path, nargs="?")
    ap.add_argument("--tokens", type=int, default=100_000)
    ap.add_argument("--turns", type=int, default=40)
    ap.add_argument("--reply", type=int, default=400)
    ap.add_argument("--out", type=Path)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        model = a.model or Path(tmp) / "llama"
        if a.model is None:
            zoo.save("llama", model, Path.home() / ".everwarm/models/SmolLM2-135M-Instruct")
        settings = Settings(disk=False, memory_budget=4 << 30, log_level="error")
        process = EngineProcess(str(model), settings, ModelInfo("m", 1, 1, 0, 0, ""))
        process.begin()
        thread = EngineThread.start(str(model), settings)
        process.wait_ready()
        sys.setswitchinterval(0.001)  # as the server sets it
        gc.collect()
        gc.freeze()
        start = tokens_of(10 + (i * 7919) % 4000 for i in range(a.tokens))
        sides = [Side(thread, start), Side(process, start)]
        for side in sides:
            side.ask(0, 2)
        found = {"model": model.name, "tokens": a.tokens} | measured(sides, a.turns, a.reply)
        process.stop()
        thread.stop()
    text = json.dumps(found, indent=2)
    print(text)
    if a.out:
        a.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
