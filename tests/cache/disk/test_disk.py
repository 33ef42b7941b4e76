"""The disk tier as its caller sees it: what is kept, found again, shared, removed, refused."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from diskfiles import Clock, QuickFiles
from sample_pieces import (
    MODEL,
    OTHER,
    Open,
    blank_for,
    bytes_for,
    fetch,
    files_in,
    is_right,
    keep,
    record,
    segment_layers,
    sequence,
)

from everwarm.cache.disk.blob import CHUNK, DTYPES, Array, Layer
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.files import OsFiles
from everwarm.cache.disk.health import GB, DiskLimits
from everwarm.errors import CacheFault, ConfigError


def test_a_conversation_is_found_again_after_a_restart(open_store: Open) -> None:
    store, tokens = open_store(files=OsFiles()), sequence(50)
    first = keep(store, tokens, 0, 20)
    second = keep(store, tokens, 20, 50)
    mark = keep(store, tokens, 30, 30, kind="checkpoint", mark="user")
    store.close()
    again = open_store(files=OsFiles())
    found = again.pieces(MODEL)
    assert [s.file_id for s in found] == [first, second, mark]
    assert [(s.record.start, s.record.end, s.record.mark) for s in found] == [
        (0, 20, None), (20, 50, None), (30, 30, "user")
    ]  # fmt: skip
    assert found[1].record.tokens == tokens[20:50]
    assert all(is_right(again, s) for s in found)
    assert again.stats().state == "ok" and again.stats().pieces == 3


def test_another_model_or_namespace_finds_nothing(open_store: Open) -> None:
    store, tokens = open_store(), sequence(10)
    keep(store, tokens, 0, 10)
    keep(store, tokens, 0, 10, model=OTHER)
    keep(store, tokens, 0, 10, namespace="key1")
    assert store.stats().pieces == 3
    assert [s.record.namespace for s in store.pieces(MODEL)] == ["", "key1"]
    assert [s.record.fingerprint for s in store.pieces(OTHER)] == [OTHER]
    assert store.pieces(bytes(32)) == []


def test_the_same_piece_is_written_once(open_store: Open) -> None:
    store, tokens = open_store(), sequence(10)
    first = keep(store, tokens, 0, 10)
    written = store.stats().written_today_bytes
    assert keep(store, tokens, 0, 10) == first
    assert store.stats().written_today_bytes == written and len(files_in(store)) == 1


def test_a_branch_in_the_middle_of_a_segment_stands_on_it(open_store: Open) -> None:
    store, tokens = open_store(), sequence(60)
    branch = tokens[:25] + sequence(30, "branch")
    keep(store, tokens, 0, 40)
    keep(store, branch, 25, 55)
    keep(store, branch, 40, 40, kind="checkpoint")
    store.close()
    assert len(open_store().pieces(MODEL)) == 3


def test_a_piece_without_what_is_above_it_is_not_written(open_store: Open) -> None:
    store, tokens = open_store(), sequence(60)
    assert keep(store, tokens, 20, 60) is None
    assert keep(store, tokens, 30, 30, kind="checkpoint") is None
    assert keep(store, sequence(60, "other"), 0, 20) is not None
    assert keep(store, tokens, 20, 60) is None
    assert store.stats().dropped == 3 and len(files_in(store)) == 1


def test_a_model_without_cuttable_layers_keeps_checkpoints_with_their_tokens(
    open_store: Open,
) -> None:
    store, tokens = open_store(), sequence(30)
    keep(store, tokens, 0, 10, kind="checkpoint")
    keep(store, tokens, 10, 30, kind="checkpoint")
    store.close()
    again = open_store()
    assert [s.record.end for s in again.pieces(MODEL)] == [10, 30]
    assert all(is_right(again, s) for s in again.pieces(MODEL))


def test_files_are_private_and_backups_skip_them(open_store: Open) -> None:
    old = os.umask(0)
    try:
        store = open_store()
        keep(store, sequence(10), 0, 10)
        store.close()
    finally:
        os.umask(old)
    assert (store.root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172")
    for path in [store.root, *store.root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_directory_that_others_can_read_is_closed_to_them(open_store: Open) -> None:
    store = open_store()
    store.close()
    store.root.chmod(0o755)
    assert stat.S_IMODE(open_store().root.stat().st_mode) == 0o700


def test_a_directory_behind_a_symbolic_link_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    (tmp_path / "cache").symlink_to(shared)
    store = DiskStore.open(tmp_path / "cache")
    assert store.stats().state == "ok"
    store.close()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


def test_a_second_opener_is_told_who_has_it(open_store: Open) -> None:
    store = open_store()
    keep(store, sequence(10), 0, 10)
    with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        open_store()
    store.close()
    assert len(open_store().pieces(MODEL)) == 1


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time; from everwarm.cache.disk.disk_store import DiskStore\n"
        "store = DiskStore.open(pathlib.Path(sys.argv[1])); print('open', flush=True)\n"
        "time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "cache")], stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"open\n"
    with pytest.raises(ConfigError, match=f"process {child.pid}"):
        DiskStore.open(tmp_path / "cache")
    child.kill()
    child.communicate()
    DiskStore.open(tmp_path / "cache").close()


def test_wrong_buffers_and_names_are_refused_at_once(open_store: Open) -> None:
    store, layers = open_store(), segment_layers(10)
    with pytest.raises(ValueError):
        store.write(record(sequence(10), 0, 10), layers, bytes_for(layers)[1:])
    with pytest.raises(ValueError):
        store.write(record(sequence(10), 0, 10, namespace="../up"), layers, bytes_for(layers))
    file_id = keep(store, sequence(10), 0, 10)
    assert file_id is not None and store.stats().damaged == 0 and fetch(store, file_id)


@pytest.mark.parametrize("name", ["0" * 32, "../index", "a/b", "", "\0", "x" * 300])
def test_a_piece_that_is_not_there_is_a_fault(open_store: Open, name: str) -> None:
    store = open_store()
    with pytest.raises(CacheFault):
        store.load(name).result(30)


def test_arrays_of_any_type_and_shape_come_back(open_store: Open) -> None:
    rng = random.Random(11)
    for n in range(60):
        shapes = [
            tuple(rng.choice([0, 1, 2, 7, 64]) for _ in range(rng.randrange(5)))
            for _ in range(rng.randrange(8))
        ]
        held = [Array(rng.choice(sorted(DTYPES)), shape) for shape in shapes]
        layers = (Layer("windowed", n, (*held[:2], n, None)), Layer("opaque", n, tuple(held[2:])))
        store = open_store()
        file_id = keep(store, sequence(10, n), 0, 10, layers=layers)
        assert file_id and store.load(file_id).result(30)[0].layers == layers
        assert is_right(store, next(s for s in store.pieces(MODEL) if s.file_id == file_id))
        store.close()


def test_an_array_of_several_chunks_comes_back(open_store: Open) -> None:
    a = Array("U8", (2 * CHUNK + 5,))
    layers = (Layer("opaque", 1, (a, Array("F32", (3,)), a)),)
    store = open_store()
    assert keep(store, sequence(10), 0, 10, layers=layers)
    assert is_right(store, store.pieces(MODEL)[0])


def test_a_piece_that_goes_while_it_is_read_is_whole_or_a_fault(open_store: Open) -> None:
    store, layers = open_store(), segment_layers(2000, width=64)
    for n in range(20):
        file_id = keep(store, sequence(2000, n), 0, 2000, layers=layers)
        assert file_id is not None
        reading = store.load(file_id)
        store.delete([file_id])
        try:
            _, buffers = reading.result(30)
        except CacheFault:
            continue
        assert [bytes(b) for b in buffers] == bytes_for(
            layers, record(sequence(2000, n), 0, 2000).position
        )


# What goes, and what stays


def test_the_budget_is_kept_and_the_least_used_leaf_goes_first(open_store: Open) -> None:
    store = open_store()
    size = _size_of_one(store)
    store.close()
    store = open_store(DiskLimits(budget_bytes=4 * size + size // 2, keep_free_bytes=0))
    tokens = sequence(40, "long")
    kept = [keep(store, tokens, 0, 10), keep(store, tokens, 10, 20)]
    other = [keep(store, sequence(10, n), 0, 10) for n in range(2)]
    store.touch([x for x in (*kept, other[1]) if x])
    newest = keep(store, tokens, 20, 30)
    assert {s.file_id for s in store.pieces(MODEL)} == {*kept, newest, other[1]}
    assert store.stats().nbytes <= store.stats().budget_bytes
    assert store.stats().evicted == 2  # the sample and the one that was not used


def _size_of_one(store: DiskStore) -> int:
    keep(store, sequence(10, "size"), 0, 10)
    return store.stats().nbytes


def test_a_parent_goes_only_after_its_children(open_store: Open) -> None:
    store = open_store()
    size = _size_of_one(store)
    store.delete_all().result(30)
    store.close()
    store = open_store(DiskLimits(budget_bytes=5 * size + size // 2, keep_free_bytes=0))
    tokens = sequence(200, "chain")
    for n in range(20):  # a chain longer than the budget: it stops growing instead of eating itself
        keep(store, tokens, 10 * n, 10 * n + 10)
        ends = [s.record.end for s in store.pieces(MODEL)]
        assert ends == [10 * i + 10 for i in range(len(ends))]
    assert len(ends) == 5 and store.stats().state == "full"
    keep(store, sequence(10, "new"), 0, 10)
    assert sorted(s.record.end for s in store.pieces(MODEL)) == [10, 10, 20, 30, 40]


def test_pinned_pieces_stay(open_store: Open) -> None:
    store = open_store()
    size = _size_of_one(store)
    store.delete_all().result(30)
    store.close()
    limits = DiskLimits(budget_bytes=3 * size + size // 2, keep_free_bytes=0)
    store = open_store(limits)
    pinned = keep(store, sequence(10, "pinned"), 0, 10)
    assert pinned is not None
    store.pin([pinned], True)
    store.close()
    store = open_store(limits)
    for n in range(8):
        keep(store, sequence(10, n), 0, 10)
    assert pinned in {s.file_id for s in store.pieces(MODEL)} and store.stats().pieces == 3
    store.pin([pinned], False)
    for n in range(8, 16):
        keep(store, sequence(10, n), 0, 10)
    assert pinned not in {s.file_id for s in store.pieces(MODEL)}


def test_rows_behind_the_last_checkpoint_go_before_others(open_store: Open) -> None:
    store = open_store()
    tokens = sequence(60)
    first = keep(store, tokens, 0, 20)
    keep(store, tokens, 20, 20, kind="checkpoint")
    tail = keep(store, tokens, 20, 60)
    for _ in range(2):
        store.touch([first or ""])
    used = store.stats().nbytes
    store.close()
    store = open_store(DiskLimits(budget_bytes=used, keep_free_bytes=0))
    keep(store, sequence(10, "new"), 0, 10)
    assert tail not in {s.file_id for s in store.pieces(MODEL)} and store.stats().pieces == 3


def test_deleting_a_session_keeps_what_another_stands_on(open_store: Open) -> None:
    store, tokens = open_store(), sequence(60)
    branch = tokens[:20] + sequence(30, "branch")
    shared, own = keep(store, tokens, 0, 20), keep(store, tokens, 20, 60)
    keep(store, branch, 20, 50)
    assert shared and own
    assert store.delete([shared, own]).result(30) == {own}
    assert len(files_in(store)) == 2 and len(store.pieces(MODEL)) == 2


def test_deleted_tokens_are_nowhere_on_the_disk(open_store: Open) -> None:
    store = open_store()
    secret = sequence(64, "secret")
    layers = segment_layers(64)
    file_id = keep(store, secret, 0, 64, layers=layers)
    keep(store, sequence(10), 0, 10)
    assert file_id is not None
    needles = [secret.tobytes()[:32], fetch(store, file_id)[0][:32]]
    assert _found(store.root, needles[0])  # in the index
    store.delete([file_id]).result(30)
    assert not any(_found(store.root, n) for n in needles)
    store.close()
    assert not any(_found(store.root, n) for n in needles)
    assert len(open_store().pieces(MODEL)) == 1


def _found(root: Path, needle: bytes) -> bool:
    return any(needle in p.read_bytes() for p in root.rglob("*") if p.is_file())


def test_clear_leaves_no_piece(open_store: Open) -> None:
    store, tokens = open_store(), sequence(60)
    for n in range(6):
        keep(store, tokens, 10 * n, 10 * n + 10)
    assert store.delete_all().result(30) == 6
    assert files_in(store) == [] and store.pieces(MODEL) == [] and store.stats().nbytes == 0
    assert keep(store, tokens, 0, 10)


def test_the_write_budget_of_a_day_is_kept_over_a_restart(open_store: Open) -> None:
    wall = Clock()
    store = open_store(wall=wall)
    size = _size_of_one(store)
    store.close()
    limits = DiskLimits(budget_bytes=GB, keep_free_bytes=0, write_budget_bytes=3 * size)
    store = open_store(limits, wall=wall)
    kept = [keep(store, sequence(10, n), 0, 10) for n in range(5)]
    assert [x is not None for x in kept] == [True, True, False, False, False]
    assert store.stats().state == "resting" and store.stats().written_today_bytes == 3 * size
    assert is_right(store, store.pieces(MODEL)[0])  # reading goes on
    store.close()
    store = open_store(limits, wall=wall)
    told = store.stats()
    assert (told.written_today_bytes, told.write_budget_bytes) == (3 * size, 3 * size)
    wall.now += 86_400
    assert store.stats().written_today_bytes == 0
    assert keep(store, sequence(10, 4), 0, 10) and store.stats().state == "ok"


def test_the_default_budget_follows_the_free_space(open_store: Open) -> None:
    files = QuickFiles()
    files.free = 80 * GB
    store = open_store(DiskLimits(keep_free_bytes=0), files=files)
    assert store.stats().budget_bytes == 20 * GB
    store.close()
    files.free = 1000 * GB
    assert open_store(DiskLimits(), files=files).stats().budget_bytes == 100 * GB


def test_space_that_must_stay_free_stays_free(open_store: Open) -> None:
    files = QuickFiles()
    store = open_store(DiskLimits(budget_bytes=GB, keep_free_bytes=10 * GB), files=files)
    first = keep(store, sequence(10, 1), 0, 10)
    files.free = 10 * GB
    second = keep(store, sequence(10, 2), 0, 10)  # the first one makes room
    assert [s.file_id for s in store.pieces(MODEL)] == [second] and first != second
    files.free = GB
    assert keep(store, sequence(10, 3), 0, 10) is None and store.stats().state == "full"


# Reads and writes beside each other


class SlowWrites(QuickFiles):
    """Writes that wait until they are allowed to go on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.waiting = threading.Event()

    def write(self, fd: int, views: Sequence[memoryview]) -> None:
        self.waiting.set()
        assert self.go.wait(60)
        super().write(fd, views)


def test_a_read_overtakes_writes_and_a_write_blocks_nobody(open_store: Open) -> None:
    files = SlowWrites()
    store, tokens, layers = open_store(files=files), sequence(30), segment_layers(10)
    first = keep(store, tokens, 0, 10)
    assert first is not None
    files.go.clear()
    files.waiting.clear()
    writes = [
        store.write(record(tokens, 10 * n, 10 * n + 10), layers, bytes_for(layers)) for n in (1, 2)
    ]
    assert files.waiting.wait(60)
    assert fetch(store, first) and store.stats().queued_bytes > 0
    assert not any(w.done() for w in writes) and not store.flush(0)
    files.go.set()
    assert store.flush(60) and all(w.result(0) for w in writes)
    assert store.stats().queued_bytes == 0


def test_a_full_queue_drops_pieces_instead_of_keeping_memory(open_store: Open) -> None:
    files = SlowWrites()
    layers = segment_layers(10)
    nbytes = sum(map(len, blank_for(layers)))
    limits = DiskLimits(budget_bytes=GB, keep_free_bytes=0, queue_bytes=2 * nbytes)
    store = open_store(limits, files=files)
    files.go.clear()
    writes = [
        store.write(record(sequence(10, n), 0, 10), layers, bytes_for(layers)) for n in range(3)
    ]
    assert writes[2].result(0) is None and store.stats().dropped == 1
    files.go.set()
    assert all(w.result(60) for w in writes[:2])


def test_many_threads_may_write_and_read(open_store: Open) -> None:
    store = open_store()

    def one(n: int) -> None:
        tokens = sequence(40, n)
        for at in range(0, 40, 10):
            file_id = keep(store, tokens, at, at + 10)
            assert file_id and fetch(store, file_id)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert store.stats().pieces == 32 and all(is_right(store, s) for s in store.pieces(MODEL))


def test_a_closed_store_keeps_nothing_and_breaks_nothing(open_store: Open) -> None:
    store = open_store()
    file_id = keep(store, sequence(10), 0, 10)
    store.close()
    store.close()
    assert file_id is not None and keep(store, sequence(10), 0, 10) is None
    assert store.pieces(MODEL) == [] and store.delete([file_id]).result(1) == frozenset()
    with pytest.raises(CacheFault):
        store.load(file_id).result(1)
    assert store.flush(1) and store.verify().result(1).right == 0
