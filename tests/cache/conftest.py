"""Fixtures of the cache's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from diskfiles import QuickFiles
from sample_pieces import ROOMY, Open

from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import DiskLimits


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    """Opens stores on one directory; all are closed at the end."""
    made: list[DiskStore] = []

    def opener(limits: DiskLimits = ROOMY, **about: object) -> DiskStore:
        about.setdefault("files", QuickFiles())
        made.append(DiskStore.open(tmp_path / "cache", limits=limits, **about))  # type: ignore[arg-type]
        return made[-1]

    yield opener
    for store in made:
        store.close()
