"""A benchmark's result on disk: one JSON file, written anew after each measurement.

A file is always whole: it is written beside the old one and put in its place.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from everwarm.errors import ConfigError
from everwarm.lab.machine import machine, versions

FORMAT = 1


@dataclass(slots=True, kw_only=True)
class Result:
    """What was asked for, on what, and what came out so far. Live."""

    benchmark: str
    model: str
    plan: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False
    resumed: int = 0
    seconds: float = 0.0
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    machine: dict[str, Any] = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)
    remarks: list[str] = field(default_factory=list)  # by hand; reports show them first
    format: int = FORMAT

    def save(self, path: Path, **more: Any) -> None:
        """Write the file; `more` is what follows from the rows, for readers."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self) | more, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)


def new(benchmark: str, model: str, plan: Any) -> Result:
    """An empty result. `plan`: a dataclass."""
    return Result(benchmark=benchmark, model=model, plan=asdict(plan))


def load(path: Path, benchmark: str) -> Result:
    """Read a result. Raises ConfigError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no result to go on with at {path}.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"The result {path} cannot be read: {error}.") from error
    if values.get("format") != FORMAT or values.get("benchmark") != benchmark:
        raise ConfigError(f"{path} is no result of `everwarm bench {benchmark}`.")
    known = set(Result.__dataclass_fields__)
    return Result(**{k: v for k, v in values.items() if k in known})


def refuse_to_lose(path: Path, benchmark: str) -> None:
    """Raise ConfigError if a result that is not complete would be overwritten."""
    if path.exists() and not load(path, benchmark).complete:
        raise ConfigError(
            f"{path} holds a run that was interrupted: add --resume to go on with it, name another "
            "directory with --out, or delete it."
        )
