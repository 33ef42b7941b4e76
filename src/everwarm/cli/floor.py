"""The bare forward from the command line, and as a child process for other benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

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
    from everwarm.engine.floor import measure
    from everwarm.engine.model import load_model

    loaded = load_model(model, model_id=None, context_length=None)
    floors = [measure(loaded.model, depth, suffix, rounds=rounds) for depth, suffix in points]
    if as_json:
        print(
            json.dumps({"model": loaded.info.id, "floors": [asdict(f) for f in floors]}, indent=2)
        )
        return
    for f in floors:
        print(f"{f.suffix_tokens:,} tokens behind {f.depth:,}: {1000 * f.floor_s:,.1f} ms")


def measured(model: str, points: Sequence[tuple[int, int]], rounds: int) -> list[dict[str, Any]]:
    """The same in a process of its own, which gives the memory back. Raises EngineError."""
    command = [sys.executable, "-m", "everwarm", "bench", "floor", model, "--json"]
    command += ["--rounds", str(rounds)]
    for depth, suffix in points:
        command += ["--at", f"{depth}:{suffix}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no detail"])[-1]
        raise EngineError(f"The bare forward could not be measured: {why}")
    floors: list[dict[str, Any]] = json.loads(done.stdout)["floors"]
    return floors
