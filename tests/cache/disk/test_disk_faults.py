"""Disks that fail at any operation, processes that die, power that is lost."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from diskfiles import Clock, FailingFiles, Killed, PowerFiles, QuickFiles
from sample_pieces import (
    MODEL,
    ROOMY,
    Open,
    fetch,
    files_in,
    is_right,
    keep,
    sequence,
)

from everwarm.cache.disk.disk_store import DiskStore
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


TOKENS = sequence(40)
BRANCH = TOKENS[:20] + sequence(20, "branch")
Saved = dict[str, bool]
"""Pieces that must be there, or must not. Others may be there if they are right."""


def save(store: DiskStore, saved: Saved) -> None:
    """A turn of a hybrid model: rows and a checkpoint; then an older session is deleted."""
    for at, kind in ((20, "segment"), (30, "checkpoint")):
        file_id = keep(store, TOKENS, at, 30, kind=kind)
        if file_id:
            saved[file_id] = True
    doomed = [s.file_id for s in store.pieces(MODEL) if s.record.tokens == BRANCH[20:]]
    store.touch(saved)
    for file_id in doomed:
        saved.pop(file_id, None)  # until it is acknowledged, it may be there or not
    for file_id in store.delete(doomed).result(30):
        saved[file_id] = False


def begin(root: Path, files: FailingFiles, clock: Clock) -> tuple[DiskStore, Saved]:
    store = DiskStore.open(root, limits=ROOMY, files=files, clock=clock)
    saved = {keep(store, TOKENS, 0, 20) or "": True}
    saved[keep(store, BRANCH, 20, 40) or ""] = True
    assert "" not in saved
    return store, saved


def operations_of_a_save(root: Path) -> list[str]:
    files = FailingFiles()
    store, saved = begin(root, files, Clock())
    before = files.count
    save(store, saved)
    store.close()
    return files.log[before:]


def check(root: Path, saved: Saved) -> None:
    """After a restart: no leftovers; what was acknowledged is there, or gone where that was."""
    with closing(DiskStore.open(root, limits=ROOMY, files=QuickFiles())) as store:
        assert store.stats().state == "ok" and store.stats().adrift == 0
        found = {s.file_id: s for s in store.pieces(MODEL)}
        assert sorted(f"{x}.kv" for x in found) == files_in(store)
        assert all(is_right(store, s) for s in found.values())
        assert {x for x, is_there in saved.items() if is_there} <= found.keys()
        assert not {x for x, is_there in saved.items() if not is_there} & found.keys()
        assert keep(store, TOKENS, 20, 30) and keep(store, TOKENS, 30, 30, kind="checkpoint")


def test_a_save_makes_the_operations_that_we_fail(tmp_path: Path) -> None:
    names = operations_of_a_save(tmp_path / "count")
    assert names[:9] == [
        "room", "create", "write", "sync", "close", "rename", "sync_directory", "sql BEGIN",
        "sql INSERT",
    ]  # fmt: skip
    assert {"delete", "sql COMMIT", "sql UPDATE", "sql DELETE", "sql close"} <= set(names)


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_an_error_at_any_operation_of_a_save_loses_no_more_than_that_save(
    tmp_path: Path, error: int, lasting: bool
) -> None:
    for n in range(1, len(operations_of_a_save(tmp_path / "count")) + 1):
        clock, files, root = Clock(), FailingFiles(error=error), tmp_path / f"{n}"
        store, saved = begin(root, files, clock)
        files.fail_at, files.lasting = files.count + n, lasting
        try:
            save(store, saved)
            if not lasting:  # the same process goes on, and recovers by itself
                clock.now += 60
                save(store, saved)
                assert all(is_right(store, s) for s in store.pieces(MODEL))
                assert files_in(store) == sorted(f"{s.file_id}.kv" for s in store.pieces(MODEL))
        finally:
            store.close()
            files.fail_at = 0
            files.bury()
        check(root, saved)
        shutil.rmtree(root)


def test_a_process_that_dies_at_any_operation_of_a_save_leaves_a_whole_cache(
    tmp_path: Path,
) -> None:
    for n in range(1, len(operations_of_a_save(tmp_path / "count")) + 1):
        files, root = FailingFiles(error=Killed), tmp_path / f"{n}"
        store, saved = begin(root, files, Clock())
        files.fail_at = files.count + n
        with suppress(Killed):  # the last operations are those of closing
            save(store, saved)
        files.bury()
        check(root, saved)
        shutil.rmtree(root)


def test_an_error_at_any_operation_of_a_start_is_a_state_and_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    store, saved = begin(root, FailingFiles(), Clock())
    save(store, saved)
    store.close()
    counting = FailingFiles()
    DiskStore.open(root, limits=ROOMY, files=counting).close()
    for n in range(1, counting.count + 1):
        for error in (errno.EIO, errno.EROFS):
            files, clock = FailingFiles(n, error), Clock()
            for name in ("index.db", "index.db-wal") if n % 2 else ():  # every other one rebuilds
                (root / name).unlink(missing_ok=True)
            store = DiskStore.open(root, limits=ROOMY, files=files, clock=clock)
            clock.now += 60
            again = keep(store, TOKENS, 20, 30)
            assert again in saved or n > counting.count - 3, "not recovered by itself"
            store.close()
            files.bury()
            check(root, saved)


def test_an_error_at_any_operation_of_a_read_is_a_miss(tmp_path: Path) -> None:
    files, clock = FailingFiles(), Clock()
    store, saved = begin(tmp_path / "cache", files, clock)
    file_id = next(iter(saved))
    before = files.count
    store.load(file_id).result(30)
    for n in range(1, files.count - before + 1):
        files.fail_at, files.error = files.count + n, errno.ENOMEM
        try:
            store.load(file_id).result(30)
        except CacheFault as e:
            assert "reading" in e.message
    files.fail_at = 0
    assert is_right(store, store.pieces(MODEL)[0]) and store.stats().damaged == 0
    files.fail_at, files.error = files.count + 3, errno.EIO  # the medium: it will not get better
    with pytest.raises(CacheFault):
        store.load(file_id).result(30)
    store.flush(30)
    assert store.stats().damaged == 1 and file_id not in {s.file_id for s in store.pieces(MODEL)}
    store.close()


@pytest.mark.parametrize("seed", range(120))
def test_power_lost_at_any_moment_loses_nothing_that_was_acknowledged(
    tmp_path: Path, seed: int
) -> None:
    rng, root = random.Random(seed), tmp_path / "cache"
    (tmp_path / "stash").mkdir()
    files = PowerFiles(tmp_path / "stash")
    store, saved = begin(root, files, Clock())
    for name in ("index.db", "index.db-wal"):
        shutil.copyfile(root / name, tmp_path / name)
    files.fail_at = files.count + rng.randrange(1, 60)
    with suppress(Killed):
        save(store, saved)
        for n in range(1, 6):  # 0 is the seed of TOKENS: a longer piece would replace its parts
            tokens = sequence(30, n)
            saved[keep(store, tokens, 0, 30) or ""] = True
    files.lose_power(rng, root)
    match rng.randrange(3):
        case 0:  # the index's last transactions are lost
            (root / "index.db-shm").unlink(missing_ok=True)
            for name in ("index.db", "index.db-wal"):
                shutil.copyfile(tmp_path / name, root / name)
        case 1:
            (root / "index.db").unlink()
            (root / "index.db-wal").unlink(missing_ok=True)
    check(root, saved)


WRITER = """
import pathlib, sys
from sample_pieces import keep, sequence
from everwarm.cache.disk.disk_store import DiskStore
store = DiskStore.open(pathlib.Path(sys.argv[1]))
n = int(sys.argv[2])
while True:
    n += 1
    for at in (0, 10, 20):
        print(keep(store, sequence(30, n), at, at + 10), flush=True)
"""


def test_a_real_kill_at_any_moment_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    rng, root = random.Random(5), tmp_path / "cache"
    known: set[str] = set()
    for round_ in range(8):
        run = [sys.executable, "-c", WRITER, str(root), str(1000 * round_)]
        path = os.pathsep.join(sys.path)
        child = subprocess.Popen(
            run, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        assert child.stdout is not None
        for _ in range(rng.randrange(1, 40)):
            known.add(child.stdout.readline().strip())
        child.kill()  # at once: it is somewhere in the next save
        known |= {x.strip() for x in child.stdout if x.endswith("\n")}
        child.stdout.close()
        child.wait()
        with closing(DiskStore.open(root)) as store:
            found = {s.file_id: s for s in store.pieces(MODEL)}
            assert known <= found.keys()
            assert all(is_right(store, s) for s in found.values())
            assert sorted(f"{x}.kv" for x in found) == files_in(store)
