"""`everwarm cache`: the conversations on disk, while no server is running on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table

from everwarm.cache.disk.tier import DiskTier
from everwarm.config import Settings

CLOSE_S: Final = 60.0


@contextmanager
def _tier(settings: Settings) -> Iterator[DiskTier]:
    """Open the directory. Raises ConfigError, with the pid, where a server is running on it."""
    tier = DiskTier.open(
        settings.home / "cache",
        budget_bytes=settings.disk_budget,
        write_budget_bytes=settings.disk_writes,
    )
    try:
        yield tier
    finally:
        tier.close(CLOSE_S)


def stats(settings: Settings, *, as_json: bool) -> None:
    """Print what is there, and the limits."""
    with _tier(settings) as tier:
        facts = asdict(tier.stats())
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
    with _tier(settings) as tier, Console(stderr=True).status("Reading every piece …"):
        found = tier.verify()
    print(f"{found.right:,} pieces are right, {len(found.damaged):,} were damaged and are gone.")
    return 1 if found.damaged else 0


def prune(settings: Settings) -> None:
    """Remove what is of no use, or over the budget."""
    with _tier(settings) as tier:
        print(f"{tier.evict():,} pieces were removed.")


def clear(settings: Settings) -> None:
    """Remove everything."""
    with _tier(settings) as tier:
        print(f"{tier.delete_all():,} pieces were removed.")
