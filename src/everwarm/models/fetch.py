"""Find a model by a path or a Hugging Face id; what is not on this computer yet is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from everwarm.errors import ConfigError

FILES: Final = (
    "*.json", "model*.safetensors", "*.py", "tokenizer.model", "*.tiktoken", "tiktoken.model",
    "*.txt", "*.jsonl", "*.jinja",
)  # fmt: skip
"""What mlx-lm fetches of a repository. With other patterns, the hub's client would not take what
mlx-lm fetched for a whole model where there is no network."""


def is_local(path_or_id: str) -> bool:
    """Whether this names a directory of this computer, there or not, and no repository."""
    is_path = path_or_id.startswith((".", "/", "~"))
    return is_path or Path(path_or_id).expanduser().exists()


def find_model(path_or_id: str) -> Path:
    """The directory of a model: as it was named, or Hugging Face's copy of it on this computer.

    Raises ConfigError where the hub does not give it. Blocks while it downloads; progress is shown
    on stderr.
    """
    if is_local(path_or_id):
        return Path(path_or_id).expanduser()
    return fetch_from_hub(path_or_id)


def fetch_from_hub(repo: str) -> Path:
    """Bring a repository to this computer, or what is new in it. Raises ConfigError.

    Without a network, what is already here is taken.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(repo, allow_patterns=list(FILES)))
    except HFValidationError:
        raise ConfigError(
            f"{repo} is neither a directory on this computer nor a Hugging Face id such as "
            "owner/name; check the model's name."
        ) from None
    except LocalEntryNotFoundError:
        raise ConfigError(
            f"{repo} is not on this computer, and the Hugging Face hub cannot be reached; check "
            "the network and the model's name, and try again."
        ) from None
    except GatedRepoError:
        raise ConfigError(
            f"{repo} asks for consent before it can be fetched; give it at "
            f"https://huggingface.co/{repo}, then run `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"The Hugging Face hub has no model {repo}, or none that you may see; check its name, "
            "or run `hf auth login` if it is private."
        ) from None
    except HfHubHTTPError as error:
        raise ConfigError(f"The Hugging Face hub refused {repo}: {_first_line(error)}") from None
    except (OSError, httpx2.HTTPError) as error:
        raise ConfigError(
            f"{repo} could not be fetched ({_first_line(error)}). Check the network and the room "
            "on the disk, and try again: what has come is kept."
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
