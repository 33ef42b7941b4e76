"""What a model's directory says of it, read from its config and the headers of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from everwarm.job import ModelInfo
from everwarm.models.directory import weight_bytes


def read_config(directory: Path) -> dict[str, Any]:
    """config.json, with the ends of turns that generation_config.json names, where it does.

    Raises OSError or ValueError where config.json is not there or no JSON.
    """
    config: dict[str, Any] = json.loads((directory / "config.json").read_bytes())
    try:
        generation = json.loads((directory / "generation_config.json").read_bytes())
    except (OSError, ValueError):
        return config
    if isinstance(generation, dict) and (ends := generation.get("eos_token_id")):
        config["eos_token_id"] = ends
    return config


def info_of(directory: Path, config: dict[str, Any], model_id: str) -> ModelInfo:
    """The model as its files describe it; `vocab_size` is 0 where they do not say."""
    inner = {**config, **(config.get("text_config") or {})}
    quantization = config.get("quantization")
    times = [int(f.stat().st_mtime) for f in directory.glob("*.safetensors")]
    return ModelInfo(
        id=model_id,
        context_length=int(inner.get("max_position_embeddings") or 32768),
        vocab_size=int(inner.get("vocab_size") or 0),
        created=max(times, default=0),
        nbytes=weight_bytes(directory),
        model_type=str(config.get("model_type", "")),
        quantization=f"{quantization['bits']}-bit" if quantization else None,
    )
