"""Files, directories and indexes that are not what they should be: a miss each, set aside once."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sample_pieces import (
    MODEL,
    Open,
    bytes_for,
    checkpoint_layers,
    fetch,
    files_in,
    is_right,
    keep,
    record,
    segment_layers,
    sequence,
)

from everwarm.cache.disk import blob
from everwarm.cache.disk.files import OsFiles
from everwarm.cache.disk.reader import PieceReader
from everwarm.errors import CacheFault


def _stored(open_store: Open, n: int = 3) -> tuple[Path, list[str]]:
    """A closed store's directory of pieces, with a chain of n."""
    store = open_store()
    tokens = sequence(10 * n)
    ids = [keep(store, tokens, 10 * i, 10 * i + 10) for i in range(n)]
    store.close()
    return store.root / "pieces", [x for x in ids if x]


@pytest.mark.parametrize("harm", ["missing", "noise", "empty", "truncated", "newer", "no tables"])
def test_an_index_that_is_lost_or_damaged_is_made_anew(open_store: Open, harm: str) -> None:
    pieces, ids = _stored(open_store)
    path = pieces.parent / "index.db"
    data = path.read_bytes()
    if harm == "missing":
        path.unlink()
    elif harm == "newer":
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version=99")
        db.close()
    elif harm == "no tables":
        with sqlite3.connect(path) as db:
            db.execute("DROP TABLE pieces")
        db.close()
    else:
        made = {"noise": os.urandom(len(data)), "empty": b"", "truncated": data[: len(data) // 2]}
        path.write_bytes(made[harm])
    store = open_store()
    assert [s.file_id for s in store.pieces(MODEL)] == ids
    assert all(is_right(store, s) for s in store.pieces(MODEL))
    assert keep(store, sequence(10, "new"), 0, 10) and store.stats().state == "ok"


def test_an_index_of_the_version_before_keeps_what_it_knows(open_store: Open) -> None:
    store = open_store()
    kept = keep(store, tokens := sequence(20), 0, 20)
    branch = keep(store, tokens[:10] + sequence(10, 1), 10, 20)
    assert kept is not None and branch is not None
    store.pin([kept], True).result(30)
    store.close()
    with closing(sqlite3.connect(store.root / "index.db", isolation_level=None)) as db:
        db.execute("ALTER TABLE pieces DROP COLUMN within")
        db.execute("PRAGMA user_version=1")
    again = open_store()
    found = {s.file_id: s for s in again.pieces(MODEL)}
    assert set(found) == {kept, branch} and found[kept].is_pinned and not found[branch].is_pinned
    assert found[branch].within == found[kept].record.position


def test_an_index_older_than_the_files_is_brought_up_to_date(open_store: Open) -> None:
    pieces, ids = _stored(open_store)
    old = (pieces.parent / "index.db").read_bytes()
    store = open_store()
    tokens = sequence(40)
    new = keep(store, tokens, 30, 40)
    store.delete([new or ""]).result(30)
    newer = keep(store, sequence(10, "newer"), 0, 10)
    store.close()
    (pieces.parent / "index.db").write_bytes(old)
    assert {s.file_id for s in open_store().pieces(MODEL)} == {*ids, newer}


def test_a_row_without_its_file_is_dropped_and_what_stood_on_it_waits(open_store: Open) -> None:
    pieces, ids = _stored(open_store)
    (pieces / f"{ids[1]}.kv").unlink()
    store = open_store()
    assert [s.file_id for s in store.pieces(MODEL)] == ids[:1] and store.stats().adrift == 1
    written_again = keep(store, sequence(30), 10, 20)
    assert [s.file_id for s in store.pieces(MODEL)] == [ids[0], written_again, ids[2]]
    assert store.stats().adrift == 0 and all(is_right(store, s) for s in store.pieces(MODEL))


def test_prune_removes_what_is_of_no_use(open_store: Open) -> None:
    pieces, ids = _stored(open_store, 5)
    (pieces / f"{ids[2]}.kv").unlink()
    store = open_store()
    assert store.evict().result(30) == 2
    assert [s.file_id for s in store.pieces(MODEL)] == ids[:2] and len(files_in(store)) == 2


def test_copies_leftovers_and_foreign_files(open_store: Open) -> None:
    pieces, ids = _stored(open_store)
    data = (pieces / f"{ids[0]}.kv").read_bytes()
    (pieces / f"{'a' * 32}.kv").write_bytes(data)  # a copy
    (pieces / f"{'b' * 32}.tmp").write_bytes(data[:100])  # half written
    (pieces / f"{'c' * 32}.kv").write_bytes(bytes(5000))  # zero-filled
    (pieces / f"{'d' * 32}.kv").write_bytes(b"")
    newer = pieces / f"{'e' * 32}.kv"
    newer.write_bytes(data[:8] + b"\2\0\0\0" + data[12:])
    (pieces / "notes.txt").write_text("mine")
    (pieces / "folder.kv").mkdir()
    store = open_store()
    assert [s.file_id for s in store.pieces(MODEL)] == ids
    assert set(files_in(store)) == {*(f"{x}.kv" for x in ids), newer.name, "notes.txt", "folder.kv"}
    assert store.stats().damaged == 3
    assert store.stats().nbytes == sum(s.nbytes for s in store.pieces(MODEL)) + len(data)


def test_symbolic_links_lead_nowhere(open_store: Open, tmp_path: Path) -> None:
    pieces, ids = _stored(open_store)
    outside = tmp_path / "outside"
    outside.mkdir()
    real = outside / "real.kv"
    shutil.move(pieces / f"{ids[2]}.kv", real)
    before = real.read_bytes()
    (pieces / f"{ids[2]}.kv").symlink_to(real)
    (pieces / f"{'a' * 32}.tmp").symlink_to(real)
    for name in ("index.db", "index.db-wal", "lock"):
        (pieces.parent / name).unlink(missing_ok=True)
    (pieces.parent / "index.db").symlink_to(outside / "index.db")
    store = open_store()
    assert [s.file_id for s in store.pieces(MODEL)] == ids[:2]
    with pytest.raises(CacheFault):
        fetch(store, ids[2])
    store.delete_all().result(30)
    assert [p.name for p in outside.iterdir()] == ["real.kv"] and real.read_bytes() == before


def test_a_linked_lock_or_pieces_directory_is_not_followed(
    open_store: Open, tmp_path: Path
) -> None:
    pieces, _ = _stored(open_store)
    outside = tmp_path / "outside"
    shutil.move(pieces, outside)
    pieces.symlink_to(outside)
    store = open_store()
    assert store.stats().state == "missing" and "symbolic link" in store.stats().why
    store.close()
    (pieces.parent / "lock").unlink()
    (pieces.parent / "lock").symlink_to(outside / "lock")
    assert open_store().stats().state == "failing" and not (outside / "lock").exists()


@pytest.mark.parametrize("at", [0, 9, 70, 200, -1])
def test_a_damaged_piece_is_deleted_once(open_store: Open, at: int) -> None:
    pieces, ids = _stored(open_store)
    path = pieces / f"{ids[1]}.kv"
    data = bytearray(path.read_bytes())
    data[at] ^= 64
    path.write_bytes(data)
    store = open_store()
    with pytest.raises(CacheFault):
        store.load(ids[1]).result(30)
    store.flush(30)
    assert not path.exists() and store.stats().damaged == 1
    assert [s.file_id for s in store.pieces(MODEL)] == ids[:1]
    with pytest.raises(CacheFault):
        store.load(ids[1]).result(30)
    store.flush(30)
    assert store.stats().damaged == 1


def test_verify_finds_damage_and_says_where(open_store: Open) -> None:
    pieces, ids = _stored(open_store, 4)
    path = pieces / f"{ids[3]}.kv"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    store = open_store()
    verified = store.verify().result(30)
    assert (verified.right, verified.damaged) == (3, (ids[3],))
    assert store.verify().result(30).damaged == ()


def test_a_row_that_says_something_else_than_its_file_is_no_way_in(open_store: Open) -> None:
    pieces, ids = _stored(open_store, 2)
    with sqlite3.connect(pieces.parent / "index.db") as db:
        wrong = sequence(10, "wrong").tobytes()
        db.execute("UPDATE pieces SET tokens = ? WHERE file_id = ?", (wrong, ids[1]))
    db.close()
    assert [s.file_id for s in open_store().pieces(MODEL)] == ids[:1]


# Random damage


def mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """One random change: a bit, some bytes, a block, a length, a part of the header, the size."""
    out = bytearray(data)
    at, n = rng.randrange(len(out)), rng.choice([1, 2, 4, 8, 64, 512])
    match rng.randrange(10):
        case 0:
            out[at] ^= 1 << rng.randrange(8)
        case 1:
            out[at : at + n] = rng.randbytes(len(out[at : at + n]))
        case 2:
            out[at : at + n] = bytes(len(out[at : at + n]))
        case 3:
            del out[at:]
        case 4:
            out += rng.randbytes(n)
        case 5:
            del out[at : at + n]
        case 6:  # a length or a version
            where, size = rng.choice([(8, 4), (12, 4), (16, 8), (24, 8), (80, 8)])
            value = rng.choice([0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, len(out)])
            out[where : where + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
        case 7:
            at = rng.randrange(64, 600)
            out[at : at + 1] = rng.choice([b"9", b'"', b"{", b"}", b"-", b"\\", b"\xff"])
        case 8:  # part of another piece
            out[at : at + n] = other[at : at + n]
        case 9:
            a, b = sorted(rng.randrange(len(out)) for _ in range(2))
            out[a : a + n], out[b : b + n] = out[b : b + n], out[a : a + n]
    return bytes(out)


def test_2000_random_mutations_of_a_file_are_detected_or_harmless(tmp_path: Path) -> None:
    rng = random.Random(7)
    layers = (*segment_layers(10), *checkpoint_layers(10))
    data, other = bytes_for(layers, 1), bytes_for(layers, 2)
    file_id = "0123456789abcdef" * 2
    r = record(sequence(10), 0, 10)
    file, another = (
        blob.encode(file_id, r, layers, [memoryview(b) for b in d]) + b"".join(d)
        for d in (data, other)
    )
    path, damaged = tmp_path / f"{file_id}.kv", []
    reader = PieceReader(OsFiles(), tmp_path, damaged.append)
    n_detected = n_harmless = 0
    for _ in range(2000):
        mutated = mutate(file, rng, another)
        path.write_bytes(mutated)
        try:
            _, buffers = reader.load(file_id).result(30)
        except CacheFault:
            n_detected += 1
            continue
        assert mutated == file and [bytes(b) for b in buffers] == data
        n_harmless += 1
    reader.close()
    assert n_detected == len(damaged) > 1800 and n_detected + n_harmless == 2000


def test_random_mutations_of_a_whole_store_never_give_a_wrong_byte(
    open_store: Open, tmp_path: Path
) -> None:
    pieces, ids = _stored(open_store, 4)
    good = tmp_path / "good"
    shutil.copytree(pieces.parent, good)
    rng, n_lost = random.Random(8), 0
    for _ in range(100):
        names = rng.sample(ids, 2)
        data = (pieces / f"{names[0]}.kv").read_bytes()
        other = (pieces / f"{names[1]}.kv").read_bytes()
        (pieces / f"{names[0]}.kv").write_bytes(mutate(data, rng, other))
        store = open_store()
        for s in store.pieces(MODEL):
            try:
                assert is_right(store, s)
            except CacheFault:
                n_lost += 1
        store.flush(30)
        assert all(is_right(store, s) for s in store.pieces(MODEL)), "damage was offered again"
        assert keep(store, sequence(10, "new"), 0, 10)
        store.close()
        shutil.rmtree(pieces.parent)
        shutil.copytree(good, pieces.parent)
    assert n_lost > 15


def test_random_mutations_of_the_index_lose_no_piece_and_make_none_wrong(
    open_store: Open, tmp_path: Path
) -> None:
    pieces, ids = _stored(open_store, 4)
    good = tmp_path / "good"
    shutil.copytree(pieces.parent, good)
    rng, n_rebuilt = random.Random(9), 0
    for _ in range(100):
        path = pieces.parent / "index.db"
        data = path.read_bytes()
        mutated = mutate(data, rng, bytes(len(data)))
        for _ in range(rng.randrange(40)):
            mutated = mutate(mutated or data, rng, bytes(len(data)))
        path.write_bytes(mutated)
        store = open_store()
        for s in store.pieces(MODEL):
            assert fetch(store, s.file_id) == bytes_for(segment_layers(10), s.record.position)
        n_rebuilt += [s.file_id for s in store.pieces(MODEL)] == ids
        assert keep(store, sequence(10, "new"), 0, 10)
        store.close()
        shutil.rmtree(pieces.parent)
        shutil.copytree(good, pieces.parent)
    assert n_rebuilt > 75
