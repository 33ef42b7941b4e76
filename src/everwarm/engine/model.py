"""Load a model: its text side, then its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model as load_weights

from everwarm.codec import Codec
from everwarm.engine.compiled_grammar import Grammars
from everwarm.errors import EverwarmError
from everwarm.job import ModelInfo
from everwarm.models.found import unloadable
from everwarm.text.load import TextSide, load_text

TellLoaded = Callable[[int, int], None]


def tell_nobody(done: int, total: int) -> None:
    """A `TellLoaded` for callers who need none."""


GROUP_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, with its text side."""

    model: Any
    codec: Codec
    grammars: Grammars
    info: ModelInfo
    config: dict[str, Any]
    directory: Path


def load_model(
    path_or_id: str,
    *,
    model_id: str | None,
    context_length: int | None,
    progress: TellLoaded = tell_nobody,
) -> LoadedModel:
    """Load weights and tokenizer. Raises ConfigError with one sentence saying what to do.

    `progress(loaded, total)` is called on this thread, in bytes of weights, at least at the
    beginning and the end.
    """
    text = load_text(path_or_id, model_id=model_id, context_length=context_length)
    try:
        return _load(text, progress)
    except EverwarmError:
        raise
    # Model files are foreign data: loaders raise anything, from JSON errors to RuntimeError.
    except Exception as e:
        raise unloadable(path_or_id, e) from e


def _load(text: TextSide, progress: TellLoaded) -> LoadedModel:
    """Load the weights of a directory. Raises whatever foreign files make loaders raise."""
    progress(0, text.info.nbytes)
    loaded: Any = load_weights(text.directory, lazy=True)
    model, config = loaded
    nbytes = read_weights(model, progress)
    quantization = config.get("quantization")
    info = replace(
        text.info,
        nbytes=nbytes,
        quantization=f"{quantization['bits']}-bit" if quantization else None,
    )
    grammars = Grammars(text.tokenizer, info.vocab_size, text.codec.eos_ids)
    return LoadedModel(model, text.codec, grammars, info, config, text.directory)


def read_weights(model: Any, progress: TellLoaded, group_bytes: int = GROUP_BYTES) -> int:
    """Read the weights of a model that was loaded lazily, group by group; gives their bytes."""
    flat: Any = tree_flatten(model.parameters())
    arrays = [v for _, v in flat]
    total, done = sum(int(v.nbytes) for v in arrays), 0
    for group in _groups(arrays, group_bytes):
        mx.eval(group)
        done += sum(v.nbytes for v in group)
        progress(done, total)
    return total


def _groups(arrays: list[mx.array], group_bytes: int) -> Iterator[list[mx.array]]:
    """The arrays in order, in groups of at least so many bytes.

    One evaluation of everything would tell nothing until its end.
    """
    group, nbytes = list[mx.array](), 0
    for array in arrays:
        group.append(array)
        nbytes += array.nbytes
        if nbytes >= group_bytes:
            yield group
            group, nbytes = [], 0
    if group:
        yield group
