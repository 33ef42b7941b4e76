"""Modules of mlx-lm that only handle text, run from their files: importing mlx-lm imports MLX.

These are its parsers of tool calls and its templates that are Python code. A contract test runs
every one of them without MLX. This file can go when `mlx_lm/__init__.py` imports nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

from everwarm.errors import ConfigError

TextModules = Literal["tool_parsers", "chat_templates"]
_OWN: Final = "everwarm_mlx_lm_"
_importing = threading.Lock()


def text_module(kind: TextModules, name: str) -> ModuleType | None:
    """A text module of mlx-lm by its name; None where mlx-lm is not installed.

    Raises ConfigError where mlx-lm is installed and has no such module.
    """
    folder = _folder(kind)
    if folder is None:
        return None
    if not (name.isidentifier() and (folder / f"{name}.py").is_file()):
        raise ConfigError(
            f"tokenizer_config.json asks for {name[:40]!r} of mlx-lm's {kind}, which this version "
            "of mlx-lm lacks. Remove the entry, or update mlx-lm."
        )
    with _importing:
        _open_package(_OWN + kind, folder)
        return importlib.import_module(f"{_OWN}{kind}.{name}")


def _folder(kind: TextModules) -> Path | None:
    """Where mlx-lm keeps these modules. Finding a package does not run it."""
    try:
        found = importlib.util.find_spec("mlx_lm")
    except ImportError:  # something in this process refuses it
        return None
    places = (found.submodule_search_locations if found else None) or ()
    return next((Path(p) / kind for p in places if (Path(p) / kind).is_dir()), None)


def _open_package(name: str, folder: Path) -> None:
    """Make the folder a package of another name, so that its modules find their neighbours."""
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
