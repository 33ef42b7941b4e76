"""The bare forward from the command line, and as a child process for other benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from everwarm.errors import ConfigError, EngineError


def points_of(at: Sequence[str]) -> list[tuple[int, int]]:
    """(depth, suffix) pairs of DEPTH:SUFFIX texts. Raises ConfigError."""
    points = []
    for text in at:
        depth, colon, suffix = text.replace(",", "").partition(":")
        if not (colon and depth.isdecimal() and suffix.isdecimal() and int(depth) and int(suffix)):
            raise ConfigError(f"--at takes DEPTH:SUFFIX, such as 100000:40; not {text}.")
        points.append((int(depth), int(suffix)))
    return points


def run(model: str, points: Sequence[tuple[int, int]], rounds: int, *, as_json: bool) -> None:
    """Measure every point in this process and print what came out."""
    from everwarm.engine.model import load_model
    from everwarm.lab.floor import measure

    loaded = load_model(model, model_id=None, context_length=None)
    floors = [measure(loaded.model, depth, suffix, rounds=rounds) for depth, suffix in points]
    if as_json:
        print(
            json.dumps({"model": loaded.info.id, "floors": [asdict(f) for f in floors]}, indent=2)
        )
        return
    for f in floors:
        print(f"{f.suffix_tokens:,} tokens behind {f.depth:,}: {1000 * f.floor_s:,.1f} ms")


def answer(model: str) -> None:
    """Read one DEPTH:SUFFIX a line, answer with the seconds of one reading, until the end."""
    from everwarm.engine.model import load_model
    from everwarm.lab.floor import Bare

    bare = Bare(load_model(model, model_id=None, context_length=None).model)
    for line in sys.stdin:
        (point,) = points_of([line.strip()])
        print(bare.read(*point), flush=True)


class FloorProcess:
    """The bare forward in a process of its own, asked between two turns of a server.

    It loads the model a second time. Owned by one thread; use it in a `with` block.
    """

    def __init__(self, model: str) -> None:
        command = [sys.executable, "-m", "everwarm", "bench", "floor", model, "--at", "-"]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip

    def __enter__(self) -> FloorProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def __call__(self, depth: int, suffix: int) -> float:
        """The seconds of one reading. Raises EngineError where the process has ended."""
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(f"{depth}:{suffix}\n")
            self._child.stdin.flush()
            return float(self._child.stdout.readline())
        except (OSError, ValueError):
            raise EngineError(
                "The bare forward ended; the model may not fit into memory twice. "
                "Go on without it: --no-floor."
            ) from None
