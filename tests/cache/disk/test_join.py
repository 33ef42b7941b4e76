"""Small segments become one, and a stop at any moment loses no row and keeps none twice."""

from __future__ import annotations

import errno
import shutil
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from diskfiles import Clock, FailingFiles, Killed, QuickFiles
from sample_pieces import (
    MODEL,
    ROOMY,
    Open,
    bytes_for,
    fetch,
    files_in,
    keep,
    record,
    segment_layers,
    sequence,
)

from everwarm.cache.disk.blob import Array, Layer
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import GB, DiskLimits
from everwarm.cache.disk.places import CELL

CUTS = (0, 1000, 1001, 2048, 3000, CELL)
"""Five turns that fill a cell."""
TOKENS = sequence(CELL + 100)
HEADS, ROW = 2, 16
"""Of `segment_layers`: heads, and bytes of one row of one head."""
Rows = tuple[int, dict[tuple[int, int], bytes]]
BRANCH = TOKENS[:1500] + sequence(600, "branch")


def keep_turns(store: DiskStore, *cuts: int) -> list[str | None]:
    return [keep(store, TOKENS, a, b) for a, b in pairwise(cuts)]


def rows(store: DiskStore) -> Rows:
    """How many rows of `TOKENS` are on disk, and for each array and head their bytes, by start.

    Made of all pieces; rows that are there twice must be equal.
    """
    out: dict[tuple[int, int], bytearray] = {}
    seen: set[int] = set()
    for s in store.pieces(MODEL):
        r = s.record
        if r.kind != "segment" or r.tokens != TOKENS[r.start : r.end]:
            continue
        for i, data in enumerate(fetch(store, s.file_id)):
            size = len(data) // HEADS
            for h in range(HEADS):
                whole = out.setdefault((i, h), bytearray(len(TOKENS) * ROW))
                mine = data[h * size : (h + 1) * size]
                at = slice(r.start * ROW, r.end * ROW)
                assert not seen.issuperset(range(r.start, r.end)) or whole[at] == mine
                whole[at] = mine
        seen.update(range(r.start, r.end))
    return len(seen), {k: bytes(v) for k, v in out.items()}


def join_all(store: DiskStore) -> int:
    """As the tier does it: join, then delete what was joined."""
    n = 0
    while (made := store.join().result(30)) is not None:
        store.delete_doubles(made.parts).result(30)
        n += 1
    return n


def test_turns_of_one_cell_become_one_file_with_the_same_rows(open_store: Open) -> None:
    store = open_store()
    keep_turns(store, *CUTS, CELL + 50, CELL + 100)
    before = rows(store)
    assert join_all(store) == 1
    held = [(s.record.start, s.record.end) for s in store.pieces(MODEL)]
    assert held == [(0, CELL), (CELL, CELL + 50), (CELL + 50, CELL + 100)]
    assert rows(store) == before and before[0] == CELL + 100
    store.close()
    again = open_store()
    assert rows(again) == before and len(again.pieces(MODEL)) == 3
    assert again.stats().adrift == again.stats().damaged == 0


def test_a_cell_that_still_grows_is_left_alone(open_store: Open) -> None:
    store = open_store()
    keep_turns(store, *CUTS[:-1])
    assert join_all(store) == 0 and len(files_in(store)) == 4


def test_a_few_files_are_not_worth_writing_again(open_store: Open) -> None:
    store = open_store()
    keep_turns(store, 0, 1000, 2000, CELL)
    assert join_all(store) == 0 and store.stats().written == 3


def test_no_row_is_written_more_than_twice(open_store: Open) -> None:
    store = open_store()
    turns = [*range(0, CELL, 128), CELL]
    for a, b in pairwise(turns):
        keep(store, TOKENS, a, b)
        join_all(store)
    assert len(files_in(store)) == 1 and store.stats().written == len(turns)


def test_branches_and_checkpoints_stand_on_what_was_joined(open_store: Open) -> None:
    store = open_store()
    keep_turns(store, *CUTS)
    for tokens, start, kind in ((BRANCH, 1500, "segment"), (TOKENS, 2500, "checkpoint")):
        assert keep(store, tokens, start, 2100 if kind == "segment" else start, kind=kind)
    assert join_all(store) == 0, "a branch within a cell parts it"
    assert store.delete(
        [s.file_id for s in store.pieces(MODEL) if s.record.tokens == BRANCH[1500:]]
    )
    assert join_all(store) == 1
    assert keep(store, BRANCH, 1500, 2100)
    kinds = [s.record.kind for s in store.pieces(MODEL)]
    assert sorted(kinds) == ["checkpoint", "segment", "segment"] and store.stats().adrift == 0


def test_rows_are_joined_up_to_a_branch(open_store: Open) -> None:
    store = open_store()
    keep_turns(store, 0, 400, 800, 1200, 1500, 1600)
    keep(store, BRANCH, 1500, 1600)
    assert join_all(store) == 1
    assert [(s.record.start, s.record.end) for s in store.pieces(MODEL)] == [
        (0, 1500), (1500, 1600), (1500, 1600),
    ]  # fmt: skip


def test_a_joined_piece_is_as_worthy_as_its_parts(open_store: Open) -> None:
    store = open_store()
    ids = [x for x in keep_turns(store, *CUTS) if x]
    store.touch(ids)
    store.pin(ids[:1], True)
    join_all(store)
    (s,) = store.pieces(MODEL)
    assert s.is_pinned and s.used == 1


def test_nothing_is_joined_while_somebody_computes(open_store: Open) -> None:
    store = open_store()
    keep_turns(store, *CUTS)
    store.is_busy = True
    assert store.join().result(30) is None and store.stats().written == 5
    store.is_busy = False
    assert join_all(store) == 1


def test_joining_lets_nothing_go_and_spares_the_days_writes(open_store: Open) -> None:
    whole = 5 * sum(map(len, bytes_for(segment_layers(CELL)))) // 4
    for limits in (
        DiskLimits(budget_bytes=whole, keep_free_bytes=0),
        DiskLimits(budget_bytes=GB, keep_free_bytes=0, write_budget_bytes=whole),
    ):
        store = open_store(limits=limits)
        keep_turns(store, *CUTS)
        assert join_all(store) == 0
        assert len(store.pieces(MODEL)) == 5 and store.stats().state == "ok"
        store.close()


def test_a_damaged_part_is_deleted_and_the_others_stay(open_store: Open) -> None:
    store = open_store()
    ids = keep_turns(store, *CUTS)
    path = store.root / "pieces" / f"{ids[3]}.kv"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert join_all(store) == 0
    assert store.stats().damaged == 1 and len(store.pieces(MODEL)) == 3


def test_only_doubles_are_deleted(open_store: Open) -> None:
    store = open_store()
    ids = [x for x in keep_turns(store, *CUTS) if x]
    store.delete_doubles(ids).result(30)
    assert len(files_in(store)) == 5
    made = store.join().result(30)
    assert made is not None
    (store.root / "pieces" / f"{made.stored.file_id}.kv").unlink()
    store.verify().result(30)  # finds that it is gone
    store.delete_doubles(ids).result(30)
    assert rows(store)[0] == CELL


def test_layers_of_another_shape_are_no_neighbours(open_store: Open) -> None:
    store = open_store()
    for n, (a, b) in enumerate(pairwise(CUTS)):
        keep(store, TOKENS, a, b, layers=segment_layers(b - a, width=8 if n else 16))
    with pytest.raises(ValueError, match="shapes"):
        store.join().result(30)
    assert len(store.pieces(MODEL)) == 5


def test_quantised_rows_are_joined_part_by_part(open_store: Open) -> None:
    store = open_store()
    for a, b in pairwise(CUTS):
        q = tuple(Array(d, (1, 2, b - a, w)) for d, w in (("U32", 4), ("F16", 1), ("F16", 1)))
        layers = (Layer("cuttable", b - a, (q, q)),)
        data = [bytes([i]) * x.nbytes for i, x in enumerate((*q, *q))]
        assert store.write(record(TOKENS, a, b), layers, data).result(30)
    assert join_all(store) == 1
    (s,) = store.pieces(MODEL)
    found, _ = store.load(s.file_id).result(30)
    assert [x.shape[2] for x in found.arrays] == [CELL] * 6
    assert [set(b) for b in fetch(store, s.file_id)] == [{i} for i in range(6)]


def operations(root: Path) -> int:
    """How many a join and its end are."""
    files = FailingFiles()
    with closing(DiskStore.open(root, limits=ROOMY, files=files)) as store:
        keep_turns(store, *CUTS)
        before = files.count
        assert join_all(store) == 1
        return files.count - before


def check(root: Path, before: Rows) -> None:
    """After a restart: every row is there, once, and the next join finds nothing broken."""
    with closing(DiskStore.open(root, limits=ROOMY, files=QuickFiles())) as store:
        assert store.stats().state == "ok"
        assert store.stats().damaged == store.stats().adrift == 0
        held = [s.record for s in store.pieces(MODEL)]
        assert sum(len(r.tokens) for r in held) == CELL
        assert sorted(f"{s.file_id}.kv" for s in store.pieces(MODEL)) == files_in(store)
        assert rows(store) == before
        assert join_all(store) == (len(held) > 1)
        assert rows(store) == before and len(files_in(store)) == 1


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, Killed])
def test_a_stop_at_any_operation_of_a_join_loses_no_row(
    tmp_path: Path, error: int | type[Killed]
) -> None:
    n_all = operations(tmp_path / "count")
    with closing(DiskStore.open(tmp_path / "count", limits=ROOMY)) as store:
        before = rows(store)
    assert n_all > 25
    for n in range(1, n_all + 1):
        clock, files, root = Clock(), FailingFiles(error=error), tmp_path / f"{n}"
        store = DiskStore.open(root, limits=ROOMY, files=files, clock=clock)
        keep_turns(store, *CUTS)
        files.fail_at = files.count + n
        with suppress(Killed):
            join_all(store)
        if error is not Killed:  # the same process goes on
            files.fail_at, clock.now = 0, clock.now + 60
            assert rows(store) == before
            store.close()
        files.bury()
        check(root, before)
        shutil.rmtree(root)
