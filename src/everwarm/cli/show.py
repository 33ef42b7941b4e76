"""`everwarm ps` and `everwarm ls`: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from everwarm.cli.client import Client
from everwarm.models import list_models


def show_server(url: str, api_key: str | None, *, as_json: bool) -> None:
    """Print what `GET /api/ps` tells."""
    client = Client(url, api_key)
    try:
        found = client.get("/api/ps")
    finally:
        client.close()
    if as_json:
        print(json.dumps(found))
        return
    table = Table("what", "value")
    for name, value in _leaves("", found):
        table.add_row(name, f"{value:,}" if type(value) in (int, float) else str(value))
    Console().print(table)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The tree's values with dotted names: `cache.nbytes`."""
    if isinstance(value, dict):
        pairs = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list):
        pairs = [(str(i), v) for i, v in enumerate(value)]
    else:
        yield name, value
        return
    for key, part in pairs:
        yield from _leaves(f"{name}.{key}" if name else key, part)


def show_models(home: Path, *, as_json: bool) -> None:
    """Print the models under `home` and in Hugging Face's cache."""
    models = [
        {"name": path.name, "nbytes": _size(path), "path": str(path)} for path in list_models(home)
    ] + list(_from_hub())
    if as_json:
        print(json.dumps(models))
        return
    table = Table("name", "size", "path")
    for model in models:
        table.add_row(str(model["name"]), f"{model['nbytes'] / 1e9:.2f} GB", str(model["path"]))
    Console().print(table)


def _size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _from_hub() -> Iterator[dict[str, Any]]:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repo in sorted(repos, key=lambda r: r.repo_id):
        if repo.repo_type == "model":
            path = str(repo.repo_path)
            yield {"name": repo.repo_id, "nbytes": repo.size_on_disk, "path": path}
