"""A model directory's files, looked at before they are loaded: what is wrong in which of them.

Loaders trust these files: a damaged one makes them raise anything, or fail at the first request.
Only beginnings are read, and JSON. Not here: loading.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

import orjson

from everwarm.errors import ConfigError

_OBJECTS: Final = ("text_config", "quantization", "quantization_config", "rope_scaling")
_AGAIN: Final = "Fetch the model again."


def check_directory(directory: Path) -> None:
    """Raise ConfigError with one sentence where a file cannot be what it should be."""
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"{directory} is not a model directory (no config.json); give an MLX model directory."
        )
    config = _object(directory / "config.json")
    for name in _OBJECTS:
        if not isinstance(config.get(name), dict | None):
            raise ConfigError(f"{directory / 'config.json'}: {name} is no JSON object. {_AGAIN}")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            _object(directory / name)
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"{directory} has no weights (*.safetensors). {_AGAIN}")
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        listed = _object(index).get("weight_map")
        named = set(listed.values()) if isinstance(listed, dict) else set()
        missing = sorted(named - {w.name for w in weights}) if named else []
        if missing:
            raise ConfigError(
                f"{directory} lacks {missing[0]}, one of {len(named)} files of weights. {_AGAIN}"
            )
    for path in weights:
        _check_weights(path)


def _object(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
        try:
            value = orjson.loads(text)  # a tokenizer's file has megabytes
        except orjson.JSONDecodeError:
            value = json.loads(text)  # which also takes NaN, as some configs have it
    except (OSError, ValueError, RecursionError) as e:
        raise ConfigError(f"{path} cannot be read as JSON ({type(e).__name__}). {_AGAIN}") from e
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is no JSON object. {_AGAIN}")
    return value


def weight_files(directory: Path) -> list[Path]:
    """The files whose weights are loaded: other safetensors may lie beside them."""
    return sorted(directory.glob("model*.safetensors")) or sorted(directory.glob("*.safetensors"))


def weight_bytes(directory: Path) -> int:
    """Bytes of all weights, without the files' headers. Raises ConfigError for a damaged file."""
    return sum(_data_range(path)[1] for path in weight_files(directory))


def _check_weights(path: Path) -> None:
    """Whether a safetensors file is as long as its header says."""
    start, length = _data_range(path)
    size, expected = path.stat().st_size, start + length
    if size < expected:
        raise ConfigError(f"{path} is cut off: {size:,} bytes of {expected:,}. {_AGAIN}")


def _data_range(path: Path) -> tuple[int, int]:
    """Where a safetensors file's data begins, and how many bytes its header says there are."""
    size = path.stat().st_size
    with path.open("rb") as f:
        start = f.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        header = f.read(length) if 8 + length <= size else b""
    try:
        tensors = json.loads(header)
        ends = [t["data_offsets"][1] for k, t in tensors.items() if k != "__metadata__"]
        return 8 + length, int(max(ends, default=0))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise ConfigError(f"{path} is damaged: it has no readable header. {_AGAIN}") from None
