"""`everwarm cache`: the conversations on disk, while no server is running on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import DiskLimits
from everwarm.config import Settings


@contextmanager
def _store(settings: Settings) -> Iterator[DiskStore]:
    """Open the directory. Raises ConfigError, with the pid, where a server is running on it."""
    limits = DiskLimits(budget_bytes=settings.disk_budget, write_bytes_per_day=settings.disk_writes)
    store = DiskStore.open(settings.home / "cache", limits=limits)
    try:
        yield store
    finally:
        store.close()


def stats(settings: Settings, *, as_json: bool) -> None:
    """Print what is there, and the limits."""
    with _store(settings) as store:
        facts = asdict(store.stats())
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table("what", "value", box=None, show_header=False)
    table.add_row("directory", str(settings.home / "cache"))
    for name, value in facts.items():
        table.add_row(name, f"{value:,.0f}" if isinstance(value, (int, float)) else str(value))
    Console().print(table)


def verify(settings: Settings) -> int:
    """Check every file and remove what is damaged; exit code 1 if any was."""
    with _store(settings) as store, Console(stderr=True).status("Reading every piece …"):
        found = store.verify().result()
    print(f"{found.right:,} pieces are right, {len(found.damaged):,} were damaged and are gone.")
    return 1 if found.damaged else 0


def prune(settings: Settings) -> None:
    """Remove what is of no use, or over the budget."""
    with _store(settings) as store:
        print(f"{store.prune().result():,} pieces were removed.")


def clear(settings: Settings) -> None:
    """Remove everything."""
    with _store(settings) as store:
        print(f"{store.clear().result():,} pieces were removed.")
