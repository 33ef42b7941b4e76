"""A disk that fails at any operation under real turns: each is right, then and after a restart.

`EVERWARM_EVERY_OPERATION=1` has each one fail (minutes); the suite takes every eleventh.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import zoo
from diskfiles import Clock, FailingFiles, Killed
from turn_requests import marks_of, turn, words

from everwarm.cache.cache import Cache
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.tier import DiskTier
from everwarm.engine.state import ModelState

MODEL = bytes(range(32))
FIRST = words(1, 80)
EVERY = 1 if os.environ.get("EVERWARM_EVERY_OPERATION") else 11


def opened(model: Any, root: Path, files: FailingFiles) -> Cache:
    tier = DiskTier(DiskStore.open(root, files=files, clock=Clock()), MODEL, lambda: None)
    return Cache(lambda: ModelState(model), budget=1 << 34, tier=tier)


def talk(cache: Cache) -> list[list[int]]:
    """Two turns and what the disk does behind them. The replies."""
    assert cache.tier is not None
    replies: list[list[int]] = []
    history: list[int] = []
    for n in range(2):
        asked = history + words(n + 1, 80)
        replies.append(turn(cache, asked, marks_of(asked)).reply)
        history = asked + replies[-1]
        until = time.monotonic() + 30
        while not cache.tier.is_idle:
            assert time.monotonic() < until
            try:
                cache.tier.step()
            except Killed:
                return replies
    return replies


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, Killed], ids=["EIO", "full", "dead"])
@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_a_fault_at_any_operation_costs_no_answer(
    family: str, error: int | type[Killed], tmp_path: Path
) -> None:
    model: Any = zoo.build(family)[0]
    whole = FailingFiles()
    cache = opened(model, tmp_path / "whole", whole)
    start = whole.count
    right = talk(cache)
    n_operations = whole.count - start
    assert cache.tier is not None
    cache.tier._store.close()
    asked = FIRST + right[0] + words(2, 80) + right[1] + words(3, 30)
    after = turn(Cache(lambda: ModelState(model), budget=1 << 34, keep=False), asked).reply
    n_warm = 0
    for n in range(1, n_operations + 1, EVERY):
        root, files = tmp_path / f"{n}", FailingFiles(error=error)
        cache = opened(model, root, files)
        files.fail_at = files.count + n
        replies = talk(cache)
        assert replies == right[: len(replies)]
        files.fail_at = 0
        files.bury()  # as a kill leaves it
        again = opened(model, root, FailingFiles())
        back = turn(again, asked, marks_of(asked))
        assert back.reply.agrees(after)
        n_warm += back.cached > 0
        assert again.tier is not None and again.tier.stats().adrift == 0
        assert not list((root / "pieces").glob("*.tmp"))
        again.tier._store.close()
        shutil.rmtree(root)
    assert n_warm > 0
