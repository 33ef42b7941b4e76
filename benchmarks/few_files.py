"""Restore a conversation of short turns: as it was written, and after its files were joined.

    python benchmarks/few_files.py DIRECTORY [--tokens 98304] [--layers 30] [--rounds 5]

Rows of 3 heads of 64 in bf16, 376 tokens a turn. Pieces are loaded four at a time, as the engine
does; the page cache is dropped before each cold round (posix_fadvise).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import deque
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from disk import MODEL, drop_from_page_cache

from everwarm.cache.disk.blob import Array, Layer, PieceRecord
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import GB, DiskLimits
from everwarm.cache.disk.places import CELL
from everwarm.cache.identity import Trail
from everwarm.cache.restore import FILES_AHEAD
from everwarm.tokens import tokens_of

TURN = 376


def ranges(start: int, end: int) -> list[tuple[int, int]]:
    """[start, end) as the engine writes it: cut at the borders of cells."""
    cuts = [start, *range((start // CELL + 1) * CELL, end, CELL), end]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def write(store: DiskStore, n_tokens: int, n_layers: int) -> None:
    trail = Trail(MODEL, "")
    turns = [r for at in range(0, n_tokens, TURN) for r in ranges(at, min(at + TURN, n_tokens))]
    for start, end in turns:
        a = Array("BF16", (1, 3, end - start, 64))
        tokens = tokens_of(k * 7919 % 49_000 for k in range(start, end))
        parent = trail.id
        r = PieceRecord("segment", MODEL, "", parent, trail.feed(tokens), start, end, tokens)
        layers = tuple(Layer("cuttable", end - start, (a, a)) for _ in range(n_layers))
        assert store.write(r, layers, [os.urandom(a.nbytes)] * (2 * n_layers)).result()


def load(store: DiskStore, ids: list[str]) -> float:
    began = time.perf_counter()
    wanted, coming = deque(ids), deque[Any]()
    while wanted or coming:
        while wanted and len(coming) < FILES_AHEAD:
            coming.append(store.load(wanted.popleft()))
        coming.popleft().result()
    return time.perf_counter() - began


def measure(store: DiskStore, rounds: int) -> dict[str, Any]:
    ids = [s.file_id for s in store.pieces(MODEL)]
    paths = [store.root / "pieces" / f"{x}.kv" for x in ids]
    cold, warm = [], []
    for _ in range(rounds):
        drop_from_page_cache(paths)
        cold.append(load(store, ids))
        warm.append(load(store, ids))
    ms = {k: round(1000 * statistics.median(v)) for k, v in (("cold", cold), ("warm", warm))}
    return {"files": len(ids), "mb": store.stats().nbytes // 10**6, "restore_ms": ms}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("directory", type=Path)
    ap.add_argument("--tokens", type=int, default=98_304)
    ap.add_argument("--layers", type=int, default=30)
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()
    limits = DiskLimits(budget_bytes=50 * GB, keep_free_bytes=0, write_budget_bytes=500 * GB)
    with TemporaryDirectory(dir=a.directory) as scratch:
        store = DiskStore.open(Path(scratch) / "cache", limits=limits)
        write(store, a.tokens, a.layers)
        out = {"tokens": a.tokens, "layers": a.layers, "as_written": measure(store, a.rounds)}
        began = time.perf_counter()
        while (made := store.join().result()) is not None:
            store.delete_doubles(made.parts).result()
        out["joining_s"] = round(time.perf_counter() - began, 1)
        out["joined"] = measure(store, a.rounds)
        store.close()
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
