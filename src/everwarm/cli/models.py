"""Models on this computer, from the command line: which there are, and fetching one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from everwarm.config import Settings
from everwarm.models import ensure_default, list_models
from everwarm.models.conversion import convert_apart
from everwarm.models.fetch import fetch_from_hub


@dataclass(frozen=True, slots=True)
class Found:
    """A model that `serve` could take by this name."""

    name: str
    nbytes: int
    path: str


def model_path(settings: Settings) -> str:
    """The model to serve: the one that was named, or else the default one, fetched if need be."""
    return settings.model or str(_default(settings.home))


def fetch(settings: Settings, model: str | None) -> str:
    """Bring a model to this computer. Returns its directory."""
    if model is None:
        return str(_default(settings.home))
    return str(fetch_from_hub(model))


def show(settings: Settings, *, as_json: bool) -> None:
    """Print the models on this computer."""
    found = [*_own(settings.home), *_hub()]
    if as_json:
        print(json.dumps([asdict(f) for f in found], indent=2))
        return
    if not found:
        print("No model is here yet; `everwarm pull` fetches the default one.")
        return
    table = Table("model", "size", "directory", box=None)
    for f in found:
        table.add_row(f.name, f"{f.nbytes / 1e9:.2f} GB", f.path)
    Console().print(table)


def _default(home: Path) -> Path:
    """The default model's directory. Progress goes to stderr, and only where there is work."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True))

    def show_step(what: str, done: int, total: int) -> None:
        bar.start()
        task = bar.task_ids[0] if bar.task_ids else bar.add_task(what)
        bar.update(task, description=f"{what}: the default model", completed=done, total=total)

    try:
        return ensure_default(home, convert=convert_apart, progress=show_step)
    finally:
        if bar.task_ids:  # a bar that never started would still print an empty line
            bar.stop()


def _own(home: Path) -> list[Found]:
    return [Found(str(p), _nbytes(p), str(p)) for p in list_models(home)]


def _hub() -> list[Found]:
    """Models in Hugging Face's cache that MLX could load: a model_type and safetensors."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found = []
    for repo in sorted(repos, key=lambda r: r.repo_id):
        revisions = sorted(repo.revisions, key=lambda r: r.last_modified)
        if repo.repo_type == "model" and revisions and _loadable(revisions[-1].snapshot_path):
            newest = revisions[-1].snapshot_path
            found.append(Found(repo.repo_id, _nbytes(newest), str(newest)))
    return found


def _loadable(path: Path) -> bool:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "model_type" in config and any(path.glob("*.safetensors"))


def _nbytes(path: Path) -> int:
    return sum(f.stat().st_size for f in path.iterdir() if f.is_file())
