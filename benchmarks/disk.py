"""Measure the disk tier against plain files: the same bytes, the same disk, in turns.

    python benchmarks/disk.py DIRECTORY [--mb 1024] [--rounds 5]

Restore: all pieces of a conversation read into buffers that exist, every byte checked, against
plain sequential reads of the same files into the same buffers; the page cache is dropped before
each (posix_fadvise) unless said otherwise. Write: each piece durable before the next, against one
file of the same size written and synced once. Ratios: ours / plain; 1.0 is the disk's own speed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from everwarm.cache.disk.blob import Array, Layer, PieceRecord, encode
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import GB, DiskLimits
from everwarm.cache.identity import Trail
from everwarm.tokens import tokens_of

MODEL = hashlib.sha256(b"benchmark").digest()
TOKENS_PER_PIECE = 4096
ROW = Array("BF16", (1, 8, TOKENS_PER_PIECE, 128))
"""8.4 MB: one layer's keys of 4,096 tokens, 8 heads of 128."""
LAYERS = tuple(Layer("cuttable", TOKENS_PER_PIECE, (ROW, ROW)) for _ in range(3))
PIECE_BYTES = 6 * ROW.nbytes


def records(n: int) -> list[PieceRecord]:
    trail, out = Trail(MODEL, ""), []
    for i in range(n):
        ids = tokens_of((i * 31 + k * 7919) % 49_000 for k in range(TOKENS_PER_PIECE))
        parent, start = trail.id, trail.at
        position = trail.feed(ids)
        out.append(PieceRecord("segment", MODEL, "", parent, position, start, trail.at, ids))
    return out


def drop_from_page_cache(paths: list[Path]) -> None:
    if not hasattr(os, "posix_fadvise"):
        raise SystemExit("needs posix_fadvise, to read from the disk and not from memory")
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def plain_read(paths: list[Path], into: list[memoryview]) -> float:
    """Sequential reads of whole files, 4 MiB at a time."""
    began = time.perf_counter()
    for path, views in zip(paths, into, strict=True):
        fd = os.open(path, os.O_RDONLY)
        at = os.fstat(fd).st_size - PIECE_BYTES
        for v in (views[a : a + 2**22] for a in range(0, PIECE_BYTES, 2**22)):
            at += os.preadv(fd, [v], at)
        os.close(fd)
    return time.perf_counter() - began


def restore(store: DiskStore, ids: list[str], source: bytes) -> float:
    """All reads at once, then wait. What was read is compared behind the clock."""
    began = time.perf_counter()
    pieces = [r.result() for r in [store.load(x) for x in ids]]
    seconds = time.perf_counter() - began
    assert all(b"".join(buffers) == source for _, buffers in pieces)
    return seconds


def plain_write(root: Path, data: list[memoryview], n: int) -> float:
    """As many files of the same size, each written and synced; no sums, no names made durable."""
    paths = [root / f"plain{i}" for i in range(n)]
    began = time.perf_counter()
    for path in paths:
        with path.open("wb", buffering=0) as f:
            for d in data:
                f.write(d)
            os.fsync(f.fileno())
    seconds = time.perf_counter() - began
    for path in paths:
        path.unlink()
    return seconds


def write(store: DiskStore, all_records: list[PieceRecord], data: list[memoryview]) -> float:
    began = time.perf_counter()
    for w in [store.write(r, LAYERS, data) for r in all_records]:
        assert w.result(), store.stats()
    return time.perf_counter() - began


def gb_per_s(nbytes: int, seconds: list[float]) -> float:
    return round(nbytes / GB / statistics.median(seconds), 3)


def measure(root: Path, n: int, rounds: int) -> dict[str, object]:
    source = os.urandom(PIECE_BYTES)
    data = [memoryview(source)[k * ROW.nbytes : (k + 1) * ROW.nbytes] for k in range(6)]
    into = [memoryview(bytearray(PIECE_BYTES)) for _ in range(n)]
    limits = DiskLimits(budget_bytes=10 * n * PIECE_BYTES, queue_bytes=1 << 50)
    seconds: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seconds.setdefault(name, []).append(value)

    store = DiskStore.open(root / "cache", limits=limits)
    all_records = records(n)
    for i in range(rounds):
        store.delete_all().result()
        writes = [
            ("plain_write", lambda: plain_write(root, data, n)),
            ("write", lambda: write(store, all_records, data)),
        ]
        for name, job in _in_turn(writes, i):
            note(name, job())
        ids = [s.file_id for s in store.pieces(MODEL)]
        paths = [root / "cache" / "pieces" / f"{x}.kv" for x in ids]
        reads = [
            ("plain_read", lambda p=paths: plain_read(p, into)),
            ("restore", lambda i=ids: restore(store, i, source)),
        ]
        for how in ("cold", "warm"):
            for name, job in _in_turn(reads, i):
                if how == "cold":
                    drop_from_page_cache(paths)
                note(f"{name}_{how}", job())
    assert all(bytes(v) == source for v in into)
    store.delete_all().result()
    store.close()
    rates = {f"{k}_gb_per_s": gb_per_s(n * PIECE_BYTES, v) for k, v in seconds.items()}
    return {
        **rates,
        "restore_cold_ratio_of_each_round": [
            round(p / o, 2)
            for p, o in zip(seconds["plain_read_cold"], seconds["restore_cold"], strict=True)
        ],
        "restore_cold_ratio": _ratio(seconds["plain_read_cold"], seconds["restore_cold"]),
        "restore_warm_ratio": _ratio(seconds["plain_read_warm"], seconds["restore_warm"]),
        "write_ratio": _ratio(seconds["plain_write"], seconds["write"]),
    }


def _in_turn(jobs: list[Any], i: int) -> list[Any]:
    return jobs[::-1] if i % 2 else jobs


def _ratio(plain: list[float], ours: list[float]) -> float:
    """Median of the ratios of neighbours in time."""
    return round(statistics.median(p / o for p, o in zip(plain, ours, strict=True)), 3)


def bytes_ratio() -> float:
    """File bytes over KV bytes: 266 turns to 100,000 tokens, 30 layers of 3 heads of 64, bf16."""
    rows = 100_000 // 266
    a = Array("BF16", (1, 3, rows, 64))
    layers = tuple(Layer("cuttable", rows, (a, a)) for _ in range(30))
    data = [memoryview(bytes(a.nbytes))] * 60
    trail, ids = Trail(MODEL, ""), tokens_of(range(rows))
    r = PieceRecord("segment", MODEL, "", trail.id, trail.feed(ids), 0, rows, ids)
    return round(len(encode("0" * 32, r, layers, data)) / (60 * a.nbytes) + 1, 4)


def one_turn_ms(root: Path) -> float:
    """A turn of 256 tokens made durable: one small piece, from the call to the answer."""
    a = Array("BF16", (1, 8, 256, 128))
    layers = tuple(Layer("cuttable", 256, (a, a)) for _ in range(3))
    data, times = [os.urandom(a.nbytes)] * 6, []
    store = DiskStore.open(root / "turns", limits=DiskLimits(budget_bytes=GB))
    trail = Trail(MODEL, "")
    for i in range(21):
        ids = tokens_of([i] * 256)
        parent, start = trail.id, trail.at
        r = PieceRecord("segment", MODEL, "", parent, trail.feed(ids), start, trail.at, ids)
        began = time.perf_counter()
        assert store.write(r, layers, data).result()
        times.append(time.perf_counter() - began)
    store.delete_all().result()
    store.close()
    return round(1000 * statistics.median(times), 1)


def start_ms(root: Path, n: int, lose_index: bool) -> float:
    """Opening a directory of n small pieces, with its index or without."""
    a, ids = Array("BF16", (1, 1, 8, 8)), tokens_of(range(TOKENS_PER_PIECE))
    layers = (Layer("cuttable", 8, (a, a)),)
    place = root / "start"
    store = DiskStore.open(place, limits=DiskLimits(budget_bytes=GB))
    for i in range(n):
        trail = Trail(MODEL, f"{i % 50}")
        parent, own = trail.id, tokens_of([i, *ids[1:]])
        r = PieceRecord("segment", MODEL, f"{i % 50}", parent, trail.feed(own), 0, len(own), own)
        store.write(r, layers, [bytes(a.nbytes)] * 2)
    store.flush()
    store.close()
    if lose_index:
        for path in place.glob("index.db*"):
            path.unlink()
    began = time.perf_counter()
    store = DiskStore.open(place, limits=DiskLimits(budget_bytes=GB))
    assert len(store.pieces(MODEL)) == n
    seconds = time.perf_counter() - began
    store.delete_all().result()
    store.close()
    return round(1000 * seconds, 1)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("directory", type=Path)
    ap.add_argument("--mb", type=int, default=1024)
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()
    with TemporaryDirectory(dir=a.directory) as scratch:
        root, n = Path(scratch), max(1, a.mb * 10**6 // PIECE_BYTES)
        result = {
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "load_average": [round(x, 1) for x in os.getloadavg()],
            "pieces": n,
            "piece_mb": round(PIECE_BYTES / 10**6, 1),
            "rounds": a.rounds,
            **measure(root, n, a.rounds),
            "file_bytes_over_kv_bytes_266_turns": bytes_ratio(),
            "one_turn_of_256_tokens_durable_ms": one_turn_ms(root),
            "start_with_500_pieces_ms": start_ms(root, 500, lose_index=False),
            "start_with_500_pieces_and_no_index_ms": start_ms(root, 500, lose_index=True),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
