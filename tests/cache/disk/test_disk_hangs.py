"""A disk that does not answer: nobody waits for it for ever. What it is asked for never comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conversations import Conversations, explore
from diskfiles import Clock, HangingFiles
from held_disk import HeldDisk
from hypothesis import strategies as st
from hypothesis.stateful import rule
from sample_pieces import MODEL, ROOMY, bytes_for, keep, record, segment_layers, sequence

from everwarm.cache.cache import Cache
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.restoring import PATIENCE_S
from everwarm.cache.disk.tier import DiskTier
from everwarm.errors import RequestError
from everwarm.testing import ORACLES, OTHER_BYTES, RESERVE, OracleRun, OracleState, reply_to
from everwarm.tokens import tokens_of

TOKENS = sequence(40)
LONG_S = 60.0
"""Nothing here takes so long that does not hang."""


@pytest.fixture
def files() -> Iterator[HangingFiles]:
    made = HangingFiles()
    yield made
    made.answers.set()


def ends(what: threading.Thread) -> bool:
    what.join(LONG_S)
    return not what.is_alive()


def hung(root: Path, files: HangingFiles, at: str, clock: Clock | None = None) -> DiskStore:
    """A store whose present operation does not come back."""
    store = DiskStore.open(root, limits=ROOMY, files=files, clock=clock or Clock())
    kept = keep(store, TOKENS, 0, 20)
    assert kept is not None
    files.hangs_at = at
    if at in ("open", "read"):
        store.load(kept)
    else:
        layers = segment_layers(20)
        store.write(record(TOKENS, 20, 40), layers, bytes_for(layers))
    assert files.is_asked.wait(LONG_S)
    return store


@pytest.mark.parametrize("at", ["create", "write", "sync", "open", "read"])
def test_a_stop_does_not_wait_for_a_disk_that_hangs(
    tmp_path: Path, files: HangingFiles, at: str
) -> None:
    tier = DiskTier(hung(tmp_path, files, at), MODEL, lambda: None)
    told: list[bool] = []
    stop = threading.Thread(target=lambda: told.append(tier.close(0.1)), daemon=True)
    stop.start()
    assert ends(stop) and told == [False]


def test_a_disk_that_answers_gives_its_directory_back(tmp_path: Path, files: HangingFiles) -> None:
    store = DiskStore.open(tmp_path, limits=ROOMY, files=files)
    keep(store, TOKENS, 0, 20)
    assert DiskTier(store, MODEL, lambda: None).close(LONG_S)
    DiskStore.open(tmp_path, limits=ROOMY, files=files).close()


def test_new_trees_do_not_wait_for_a_disk_that_hangs(tmp_path: Path, files: HangingFiles) -> None:
    store = hung(tmp_path, files, "write")
    assert store.pieces(MODEL, 0.01) == []
    files.answers.set()
    assert len(store.pieces(MODEL)) == 2
    store.close()


def test_a_read_that_brings_nothing_is_told_by_how_long(
    tmp_path: Path, files: HangingFiles
) -> None:
    clock = Clock()
    store = DiskStore.open(tmp_path, limits=ROOMY, files=files, clock=clock)
    kept = keep(store, TOKENS, 0, 20)
    assert kept is not None
    clock.now += 100
    assert store.read_stalled_s == 0.0
    files.hangs_at = "read"
    reading = store.load(kept)
    assert files.is_asked.wait(LONG_S)
    clock.now += 31
    assert store.read_stalled_s == 31
    files.answers.set()
    reading.result(LONG_S)
    assert store.read_stalled_s == 0.0
    store.close()


def started(disk: HeldDisk, budget: int = 1 << 30, layers: str = "cuttable") -> Cache:
    most = OTHER_BYTES // 2
    tier = DiskTier(disk, bytes(32), lambda: None, most)  # type: ignore[arg-type]
    return Cache(
        lambda: OracleState(ORACLES[layers]), budget=budget, tier=tier,
        bytes_at=lambda rows: 10 * (rows + RESERVE) + OTHER_BYTES,
    )  # fmt: skip


def test_a_turn_whose_files_never_come_is_read_cold() -> None:
    disk, prompt = HeldDisk(), tokens_of(range(10, 400))
    first = started(disk)
    run = OracleRun(first, prompt, ())
    while not run.over:
        run.step()
    assert first.tier is not None
    first.tier.step()
    while disk.held:
        disk.answer(0, "well")
        first.tier.step()
    second = started(disk)
    run = OracleRun(second, prompt, ())
    run.step()
    disk.read_stalled_s = PATIENCE_S
    assert disk.held and not run.step() and not run.step(), "it waits for its files"
    disk.read_stalled_s = PATIENCE_S + 1
    while not run.over:
        run.step()
    assert run.reply == reply_to(prompt, OracleState().layers, len(run.reply))
    assert run.start == 0 and run.prefilled == len(prompt)
    third = started(disk)
    other = OracleRun(third, prompt, ())
    other.step()
    assert other.lease is not None and other.lease.restoring is None, "it is not asked again"


def test_a_write_that_takes_nothing_is_told_by_how_long(
    tmp_path: Path, files: HangingFiles
) -> None:
    clock = Clock()
    store = hung(tmp_path, files, "write", clock)
    clock.now += 31
    assert store.write_stalled_s == 31 and store.read_stalled_s == 0.0
    files.answers.set()
    assert store.flush(LONG_S) and store.write_stalled_s == 0.0
    store.close()


def test_a_turn_that_has_no_room_beside_a_write_that_hangs_is_refused() -> None:
    disk = HeldDisk()
    cache = started(disk, budget=4000, layers="hybrid")
    run = OracleRun(cache, tokens_of(range(10, 60)), ())
    while not run.over:
        run.step()
    tier = cache.tier
    assert tier is not None
    tier.step()
    while not tier.will_free:  # rows: room for them is always set aside
        disk.answer(0, "well")
        tier.step()
    room = cache.memory.budget - tier.in_flight_nbytes + tier.will_free // 2
    large = OracleRun(cache, tokens_of(range(100, 100 + (room - OTHER_BYTES) // 10 - RESERVE)), ())
    assert not large.step(), "it waits until the copy is written"
    disk.write_stalled_s = PATIENCE_S + 1
    with pytest.raises(RequestError):
        large.step()


class OnADiskThatHangs(Conversations):
    """Now and then a disk brings nothing for too long, and later all that it was asked for."""

    @rule(model=st.integers(0, 1), hangs=st.booleans())
    def a_disk_hangs(self, model: int, hangs: bool) -> None:
        if (disk := self.disks[model]) is not None:
            disk.read_stalled_s = PATIENCE_S + 1 if hangs else 0.0


def test_warm_replies_are_cold_replies_on_a_disk_that_hangs_now_and_then() -> None:
    explore(OnADiskThatHangs, 3000)
