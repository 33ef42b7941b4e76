"""Load a model directory or a Hugging Face id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx_lm
from huggingface_hub import hf_hub_download
from mlx.utils import tree_flatten

from everwarm.codec import Codec
from everwarm.engine.compiled_grammar import Grammars
from everwarm.errors import ConfigError, EverwarmError
from everwarm.job import ModelInfo
from everwarm.models.directory import check_directory
from everwarm.text.text_codec import TextCodec


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
    is_local = path.exists() or path_or_id.startswith((".", "/", "~"))
    if is_local:
        check_directory(path)
    try:
        return _load(path_or_id, path if is_local else None, model_id, context_length)
    except EverwarmError:
        raise
    # Model files are foreign data: loaders raise anything, from JSON errors to RuntimeError.
    except Exception as e:
        detail = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no detail'}"
        raise ConfigError(
            f"The model {path_or_id} cannot be loaded ({detail}); check its name and files, "
            "or fetch it again."
        ) from e


def _load(
    path_or_id: str, path: Path | None, model_id: str | None, context_length: int | None
) -> LoadedModel:
    """Load a directory, or a Hugging Face id. Raises whatever foreign files make loaders raise."""
    loaded: Any = mlx_lm.load(str(path) if path else path_or_id, return_config=True)
    model, wrapper, config = loaded
    codec = TextCodec(wrapper)
    directory = path or _snapshot(path_or_id)
    info = _info(model_id or (path.resolve().name if path else path_or_id), directory, config)
    _check_vocabulary(wrapper._tokenizer, info.vocab_size, directory)
    codec.check_template(str(directory))
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


def _check_vocabulary(tokenizer: Any, n_rows: int, directory: Path) -> None:
    """Raise ConfigError where words of the tokenizer have no row among the embeddings.

    Added tokens may have none: some text models keep the name of a token for images.
    """
    added = set(tokenizer.added_tokens_decoder)
    highest = max((i for i in tokenizer.get_vocab().values() if i not in added), default=0)
    if n_rows and highest >= n_rows:
        raise ConfigError(
            f"The tokenizer in {directory} is another model's: it has ids up to {highest:,}, and "
            f"config.json says vocab_size {n_rows:,}. Fetch the model again."
        )


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
