"""A benchmark's result: one JSON file, with the machine and the versions that it was measured on.

The file is written anew after each measurement, and always whole: a new one is written beside the
old one and put in its place. It names no person and no host.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from everwarm.errors import ConfigError

FORMAT = 1
PACKAGES = ("everwarm", "mlx", "mlx-lm")


def machine() -> dict[str, str | int | None]:
    """Processor, cores, memory and system."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of what is installed here; a server elsewhere may have others."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "everwarm" not in found:
        from everwarm import __version__

        found["everwarm"] = __version__
    return found


def sentence(facts: dict[str, str | int | None], installed: dict[str, str]) -> str:
    """Machine and versions in one line."""
    memory = facts.get("memory_bytes")
    size = f", {int(memory) / 1e9:.0f} GB" if memory else ""
    names = ", ".join(f"{k} {v}" for k, v in installed.items())
    return f"{facts['cpu']}, {facts['cores']} cores{size}, {facts['system']}; {names}"


def _cpu() -> str:
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        return done.stdout.strip() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


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
