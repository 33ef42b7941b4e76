"""A model that was found: its directory, and what its files say of it before any is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from everwarm.errors import ConfigError, EverwarmError
from everwarm.job import ModelInfo
from everwarm.models.directory import check_directory
from everwarm.models.fetch import find_model, is_local
from everwarm.models.info import info_of, read_config


@dataclass(frozen=True, slots=True)
class FoundModel:
    """`info.nbytes` counts the weights in the files; an engine knows what they take once loaded."""

    directory: Path
    config: dict[str, Any]
    info: ModelInfo


def find(path_or_id: str, *, model_id: str | None, context_length: int | None) -> FoundModel:
    """Find a model by a path or a Hugging Face id, which is fetched where it is not here.

    Raises ConfigError with one sentence saying what to do.
    """
    try:
        directory = find_model(path_or_id)
        check_directory(directory)
        own_id = directory.resolve().name if is_local(path_or_id) else path_or_id
        config = read_config(directory)
        info = info_of(directory, config, model_id or own_id)
    except EverwarmError:
        raise
    # A model's files are foreign data.
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as e:
        raise unloadable(path_or_id, e) from e
    context_length = context_length or info.context_length
    return FoundModel(directory, config, replace(info, context_length=context_length))


def check_name(path_or_id: str) -> None:
    """Raise ConfigError, at once, where a name cannot be a model's; `find` looks further."""
    path = Path(path_or_id).expanduser()
    if is_local(path_or_id) and not (path / "config.json").is_file():
        check_directory(path)


def unloadable(path_or_id: str, error: Exception) -> ConfigError:
    """What a person is told where a loader fails on a model's files."""
    words = str(error).splitlines()
    detail = f"{type(error).__name__}: {words[0] if words else 'no detail'}"
    return ConfigError(
        f"The model {path_or_id} cannot be loaded ({detail}); check its name and files, "
        "or fetch it again."
    )
