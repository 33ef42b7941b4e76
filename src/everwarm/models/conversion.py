"""Convert a GGUF file in a process of its own: it needs MLX, which a server's front never loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from everwarm.errors import ConfigError, MissingMlx

_MODULE: Final = "everwarm.engine.convert"


def convert_apart(gguf: Path, out: Path) -> None:
    """Write the model directory `out` from the file `gguf`. Blocks for seconds.

    The process ends with ours, since it reads our end of a pipe. Raises ConfigError where MLX is
    not installed, or where the conversion fails.
    """
    command = [sys.executable, "-m", _MODULE, str(gguf), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace")
        code = process.wait()
    if code == 0:
        return
    lines = said.strip().splitlines()
    if lines and lines[-1].startswith("ModuleNotFoundError: No module named 'mlx"):
        raise MissingMlx(
            "The default model has to be converted once, and the package mlx, which does it, is "
            "not installed. Install everwarm with its dependencies: pip install everwarm."
        )
    why = lines[-1] if lines else f"it ended by signal {-code}" if code < 0 else f"exit code {code}"
    raise ConfigError(
        f"The default model cannot be converted ({why}). Try again, or name another model."
    )
