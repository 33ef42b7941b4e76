"""The budget under load, watched from outside."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

from diskfiles import QuickFiles
from sample_pieces import (
    MODEL,
    bytes_for,
    checkpoint_layers,
    is_right,
    record,
    segment_layers,
    sequence,
)

from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import DiskLimits
from everwarm.tokens import Tokens

EVERY_S = 0.01
N_SESSIONS, N_TURNS = 1000, 4


class Watcher(threading.Thread):
    """Adds up the files of a directory, again and again."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.most = self.looks = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(EVERY_S):
            total = 0
            with os.scandir(self.directory) as found:
                for e in found:
                    try:
                        total += e.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        continue
            self.most = max(self.most, total)
            self.looks += 1


def test_random_sessions_of_twenty_times_the_budget_never_exceed_it(tmp_path: Path) -> None:
    rng = random.Random(3)
    layers = segment_layers(40, width=64)
    piece = sum(map(len, bytes_for(layers)))
    budget = N_SESSIONS * N_TURNS * piece // 20
    store = DiskStore.open(
        tmp_path / "cache",
        limits=DiskLimits(budget_bytes=budget, keep_free_bytes=0),
        files=QuickFiles(),
    )
    watcher = Watcher(store.root / "pieces")
    watcher.start()
    opeN_SESSIONS: list[tuple[Tokens[int], int]] = []
    for n in range(N_SESSIONS):
        opeN_SESSIONS.append((sequence(40 * N_TURNS, n), 0))
        for _ in range(N_TURNS):
            i = rng.randrange(len(opeN_SESSIONS))
            tokens, at = opeN_SESSIONS[i]
            r = record(tokens, at, at + 40)
            wrote = [store.write(r, layers, bytes_for(layers, r.position))]
            if rng.random() < 0.3:
                extra = checkpoint_layers(at + 40)
                r = record(tokens, at + 40, at + 40, kind="checkpoint")
                wrote.append(store.write(r, extra, bytes_for(extra, r.position)))
            store.touch([x for w in wrote if (x := w.result(30))])
            opeN_SESSIONS[i] = (tokens, at + 40)
            if at + 80 > len(tokens) or len(opeN_SESSIONS) > 20:
                opeN_SESSIONS.pop(i)
            if not opeN_SESSIONS:
                opeN_SESSIONS.append((sequence(40 * N_TURNS, (n, "more")), 0))
    store.flush()
    watcher.is_over.set()
    watcher.join()
    stats = store.stats()
    assert watcher.looks > 100 and watcher.most <= budget + piece + 4096
    assert stats.evicted > 500 and stats.nbytes <= budget and stats.nbytes > budget // 2
    on_disk = sum(p.stat().st_size for p in (store.root / "pieces").iterdir())
    assert stats.nbytes == on_disk
    left = store.pieces(MODEL)
    assert left and all(is_right(store, s) for s in left)
    store.close()
