"""How the time that something takes grows with its size."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

RUNS = 3


def growth(work: Callable[[int], object], small: int, large: int) -> float:
    """How many times as long `large` takes as `small`.

    Of processor time, and the least of several runs in turns: a busy machine makes single runs
    longer by chance, and none of them shorter.
    """
    work(small // 10)  # compiles patterns and fills caches
    times: dict[int, list[float]] = {small: [], large: []}
    for _ in range(RUNS):
        for n, found in times.items():
            gc.collect()
            begin = time.process_time()
            work(n)
            found.append(time.process_time() - begin)
    return min(times[large]) / max(min(times[small]), 1e-3)
