"""Open the disk tier of a loaded model: its fingerprint, its directory, its limits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from everwarm.cache.disk.files import Files
from everwarm.cache.disk.tier import DiskTier
from everwarm.config import Settings
from everwarm.engine.fingerprint import fingerprint
from everwarm.engine.model import LoadedModel

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
    sums = s.home / "weights.json"
    tier = DiskTier.open(
        s.home / "cache",
        fingerprint=lambda: fingerprint(
            loaded.model, loaded.config, loaded.directory, sums, _HashProgressLog()
        ),
        wake=wake,
        budget_bytes=s.disk_budget,
        write_budget_bytes=s.disk_writes,
        files=files,
    )
    stats = tier.stats()
    if stats.state != "ok":
        log.warning("The disk tier rests (%s): %s", stats.state, stats.why)
    return tier


class _HashProgressLog:
    """Tells how far the summing of weights is, where that takes long enough to wonder."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last > SAY_EVERY_S:
            self._last = time.monotonic()
            log.info("Reading %s once, to know it again: %d%%", what, 100 * done // max(total, 1))
