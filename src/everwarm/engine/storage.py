"""Open the disk tier of a loaded model: its fingerprint, its directory, its limits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.files import Files
from everwarm.cache.disk.health import DiskLimits
from everwarm.cache.disk.tier import DiskTier
from everwarm.config import Settings
from everwarm.engine.fingerprint import fingerprint
from everwarm.engine.model import LoadedModel

QUEUE_BYTES: Final = 2**30
SAY_EVERY_S: Final = 2.0
log = logging.getLogger("everwarm.cache")


def open_tier(
    loaded: LoadedModel, s: Settings, wake: Callable[[], None], files: Files | None = None
) -> DiskTier | None:
    """The tier, or None where settings want none. ConfigError: another server has the directory.

    `files`: another file system than the real one, for measurements.
    """
    if not (s.cache and s.disk):
        return None
    limits = DiskLimits(
        budget_bytes=s.disk_budget, write_bytes_per_day=s.disk_writes, queue_bytes=QUEUE_BYTES
    )
    store = DiskStore.open(s.home / "cache", limits=limits, files=files)
    sums = s.home / "weights.json"
    print_ = fingerprint(loaded.model, loaded.config, loaded.directory, sums, _HashProgressLog())
    stats = store.stats()
    if stats.state != "ok":
        log.warning("The disk tier rests (%s): %s", stats.state, stats.why)
    return DiskTier(store, print_, wake)


class _HashProgressLog:
    """Tells how far the summing of weights is, where that takes long enough to wonder."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last > SAY_EVERY_S:
            self._last = time.monotonic()
            log.info("Reading %s once, to know it again: %d%%", what, 100 * done // max(total, 1))
