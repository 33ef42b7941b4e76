"""The engine processes of a running server, and what a server's processes import."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

TELLS_IMPORTS = """
# Libraries look for mlx itself, to know whether it is there; whoever uses it imports mlx.core.
import os, sys

class Tells:
    def find_spec(self, name, path=None, target=None):
        if name in ("mlx.core", "mlx_lm"):
            with open(os.path.join({folder!r}, f"{{os.getpid()}}.{{name}}"), "w"):
                pass

sys.meta_path.insert(0, Tells())
"""
HIDES_MLX = """
import sys

sys.modules["mlx"] = sys.modules["mlx_lm"] = None
"""


def engines_of(pid: int) -> list[int]:
    """The process ids of a server's engines."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:1] not in ("", "Z")


def is_gone(pid: int, within_s: float = 20.0) -> bool:
    """Whether a process ends by itself within this time."""
    until = time.monotonic() + within_s
    while is_alive(pid):
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True


def customized(folder: Path, text: str) -> dict[str, str]:
    """Variables of an environment whose interpreters run this text before anything else."""
    (folder / "sitecustomize.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(folder)}
