"""Get a model onto this computer, with a progress bar on stderr."""

from __future__ import annotations

from pathlib import Path

from everwarm.errors import ConfigError


def default_model(home: Path) -> Path:
    """The default model's directory; fetched and converted once, the first time."""
    from everwarm.models import DEFAULT_NAME, ensure_default

    made = home / "models" / DEFAULT_NAME
    if (made / "config.json").is_file():
        return made
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("Preparing the default model", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{what} {DEFAULT_NAME}", completed=done, total=total)

        return ensure_default(home, convert=_convert, progress=show)


def _convert(gguf: Path, target: Path) -> None:
    from everwarm.engine.convert import convert  # imports MLX: only when there is work to do

    convert(gguf, target)


def from_hub(model: str) -> Path:
    """The directory of a model: itself if it is one, else its snapshot in Hugging Face's cache."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The model {model!r} cannot be fetched from Hugging Face ({type(error).__name__}); "
            "check its name and the network."
        ) from error
