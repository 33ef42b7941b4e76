"""Load a model directory or a Hugging Face id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx_lm
from huggingface_hub import hf_hub_download
from mlx.utils import tree_flatten

from everwarm.codec import Codec
from everwarm.engine.grammar import Grammars
from everwarm.engine.text import TextCodec
from everwarm.errors import ConfigError
from everwarm.job import ModelInfo


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, with its text side."""

    model: Any
    codec: Codec
    grammars: Grammars
    info: ModelInfo
    config: dict[str, Any]
    directory: Path


def load_model(path_or_id: str, *, model_id: str | None, context_length: int | None) -> LoadedModel:
    """Load weights and tokenizer. Raises ConfigError with one sentence saying what to do."""
    path = Path(path_or_id).expanduser()
    local = path.exists() or path_or_id.startswith((".", "/", "~"))
    if local and not (path / "config.json").is_file():
        raise ConfigError(
            f"{path} is not a model directory (no config.json); give an MLX model directory."
        )
    source = str(path) if local else path_or_id
    try:
        loaded: Any = mlx_lm.load(source, return_config=True)
        model, wrapper, config = loaded
    # Model files are foreign data: loaders raise anything, from JSON errors to RuntimeError.
    except Exception as e:
        detail = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no detail'}"
        raise ConfigError(
            f"The model {path_or_id} cannot be loaded ({detail}); check its name and files, "
            "or fetch it again."
        ) from e
    codec = TextCodec(wrapper)
    directory = path if local else _snapshot(path_or_id)
    info = _info(model_id or (path.resolve().name if local else path_or_id), directory, config)
    flat: Any = tree_flatten(model.parameters())
    nbytes = sum(v.nbytes for _, v in flat)
    info = replace(
        info,
        context_length=context_length or info.context_length,
        vocab_size=info.vocab_size or len(wrapper),
        nbytes=nbytes,
    )
    grammars = Grammars(wrapper._tokenizer, info.vocab_size, codec.eos_ids)
    return LoadedModel(model, codec, grammars, info, config, directory)


def _snapshot(repo: str) -> Path:
    return Path(hf_hub_download(repo, "config.json", local_files_only=True)).parent


def _info(model_id: str, directory: Path, config: dict[str, Any]) -> ModelInfo:
    inner = {**config, **(config.get("text_config") or {})}
    quantization = config.get("quantization")
    times = [int(f.stat().st_mtime) for f in directory.glob("*.safetensors")]
    return ModelInfo(
        id=model_id,
        context_length=int(inner.get("max_position_embeddings") or 32768),
        vocab_size=int(inner.get("vocab_size") or 0),
        created=max(times, default=0),
        nbytes=0,
        model_type=str(config.get("model_type", "")),
        quantization=f"{quantization['bits']}-bit" if quantization else None,
    )
