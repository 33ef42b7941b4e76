"""The machine and the versions behind a figure, without names of people or hosts."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

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
