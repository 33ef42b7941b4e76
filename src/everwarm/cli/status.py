"""`everwarm ps`: what a running server serves and does."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from everwarm.client import ChatClient


def show(client: ChatClient, *, as_json: bool) -> None:
    """Print the server's models and its counts."""
    models = client.get("/v1/models")["data"]
    counts = client.get("/api/ps")
    if as_json:
        print(json.dumps({"url": client.url, "models": models, "ps": counts}, indent=2))
        return
    table = Table("what", "value", box=None, show_header=False)
    table.add_row("server", client.url)
    for model in models:
        table.add_row("model", str(model["id"]))
    for name, value in _flat(counts):
        table.add_row(name, f"{value:,}" if type(value) is int else str(value))
    Console().print(table)


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Nested JSON as rows of a dotted name and a plain value."""
    if isinstance(value, dict):
        inner = [(f"{name}.{k}" if name else str(k), v) for k, v in value.items()]
    elif isinstance(value, list):
        inner = [(f"{name}.{i}", v) for i, v in enumerate(value)]
    else:
        return [(name, value)]
    return [row for k, v in inner for row in _flat(v, k)]
