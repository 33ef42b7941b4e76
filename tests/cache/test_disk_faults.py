"""Disks that fail at any operation, processes that die, power that is lost."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import pytest
from diskfiles import Clock, FailingFiles
from pieces import (
    MODEL,
    Open,
    fetch,
    files_in,
    is_right,
    keep,
    sequence,
)

from everwarm.cache.disk import DiskStore
from everwarm.errors import CacheFault


@pytest.mark.parametrize(
    ("error", "state"),
    [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EROFS, "read-only"),
     (errno.EIO, "failing")],
)  # fmt: skip
def test_a_failing_disk_is_left_alone_for_a_while_and_then_used_again(
    open_store: Open, error: int, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, files = Clock(), FailingFiles(error=error)
    store = open_store(files=files, clock=clock)
    keep(store, sequence(10, "before"), 0, 10)
    files.fail_at, files.lasting = files.count + 1, True
    with caplog.at_level(logging.WARNING, "everwarm.cache"):
        assert keep(store, sequence(10, 0), 0, 10) is None
        tried = files.count
        assert [keep(store, sequence(10, n), 0, 10) for n in range(50)] == [None] * 50
        assert files.count == tried, "the disk was asked again before its time"
        for _ in range(5):
            clock.now += 9
            assert keep(store, sequence(10, 1), 0, 10) is None
    assert store.stats().state == state and len(caplog.records) == 1
    files.fail_at = 0
    clock.now += 60
    assert keep(store, sequence(10, 1), 0, 10) and store.stats().state == "ok"
    assert all(is_right(store, s) for s in store.pieces(MODEL)) and store.stats().pieces == 2
    assert [n for n in files_in(store) if n.endswith(".tmp")] == []


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOSPC])
def test_a_directory_that_cannot_be_used_at_start_is_a_state_and_no_error(
    open_store: Open, error: int
) -> None:
    clock, files = Clock(), FailingFiles(1, error)
    files.lasting = True
    store = open_store(files=files, clock=clock)
    assert store.stats().state != "ok" and store.stats().why and store.pieces(MODEL) == []
    assert keep(store, sequence(10), 0, 10) is None
    files.fail_at = 0
    clock.now += 60
    assert keep(store, sequence(10), 0, 10) and store.stats().state == "ok"


def test_a_file_in_place_of_the_directory_is_a_state(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a directory")
    store = DiskStore.open(tmp_path / "cache")
    assert store.stats().state in ("missing", "failing") and store.stats().why
    assert keep(store, sequence(10), 0, 10) is None
    store.close()
    assert (tmp_path / "cache").read_text() == "not a directory"


def test_a_directory_removed_while_running_is_made_again(open_store: Open) -> None:
    clock = Clock()
    store = open_store(clock=clock)
    file_id = keep(store, sequence(10), 0, 10)
    assert file_id is not None
    shutil.rmtree(store.root)
    with pytest.raises(CacheFault):
        fetch(store, file_id)
    clock.now += 60
    keep(store, sequence(10, 1), 0, 10)
    clock.now += 60
    assert keep(store, sequence(10, 2), 0, 10) and store.stats().state == "ok"
    store.close()
    assert len(open_store().pieces(MODEL)) >= 1
