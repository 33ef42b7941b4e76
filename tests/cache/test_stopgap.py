"""Checkpoints that are taken for the disk alone: what they may cost, and when they go."""

from __future__ import annotations

import time

from held_disk import HeldDisk
from sample_pieces import GB, Open

from everwarm.cache.cache import Cache, Lease
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import DiskLimits
from everwarm.cache.disk.tier import DiskTier
from everwarm.cache.stopgap import DAY_SHARE
from everwarm.cache.tree import Node
from everwarm.testing import ORACLES, OracleState
from everwarm.tokens import Tokens, tokens_of

LAYERS = ORACLES["hybrid"]
PART = 100


def started(disk: HeldDisk | DiskStore, budget: int = 1 << 30) -> Cache:
    tier = DiskTier(disk, bytes(32), lambda: None)  # type: ignore[arg-type]
    return Cache(lambda: OracleState(LAYERS), budget=budget, tier=tier)


def said(n: int) -> Tokens[int]:
    return tokens_of(10 + i * i % 3000 for i in range(n))


def nodes(cache: Cache) -> list[Node]:
    return [n for root in cache.roots.values() for n in root.below()]


def read_on(cache: Cache, lease: Lease, tokens: Tokens[int]) -> None:
    """Read one part more and spill it."""
    at = lease.sequence.length
    lease.sequence.prefill(tokens[at : at + PART])
    cache.spill(lease.holder)


def begun(cache: Cache, tokens: Tokens[int]) -> Lease:
    lease = cache.lease(tokens)
    assert isinstance(lease, Lease)
    return lease


def settle(cache: Cache) -> None:
    """Let the disk take what it wants."""
    assert cache.tier is not None
    until = time.monotonic() + 30
    while not cache.tier.is_idle:
        cache.tier.step()
        assert time.monotonic() < until
        time.sleep(0.0005)


def answer_all(cache: Cache, disk: HeldDisk) -> None:
    assert cache.tier is not None
    cache.tier.step()
    while disk.held:
        disk.answer(0, "well")
        cache.tier.step()


def test_stopgaps_leave_the_most_of_the_days_writes_to_others(open_store: Open) -> None:
    most = 400_000
    store = open_store(DiskLimits(GB, keep_free_bytes=0, write_budget_bytes=most))
    cache, tokens = started(store), said(120 * PART)
    lease = begun(cache, tokens)
    taken = [0]
    while lease.sequence.length < len(tokens):
        read_on(cache, lease, tokens)
        taken.append(taken[-1] + lease.holder.node.is_stopgap)
        settle(cache)
        if taken[-1] > taken[-2]:
            assert store.stats().written_today_bytes <= most // DAY_SHARE + 20_000
    assert 0 < taken[-1] == taken[-30]
    cache.commit(lease)
    settle(cache)
    assert nodes(cache)[-1].shelved_checkpoint and store.stats().state == "ok"


def test_a_stopgap_is_found_that_memory_dropped_while_it_was_written() -> None:
    disk = HeldDisk()
    cache, tokens = started(disk), said(3 * PART)
    lease = begun(cache, tokens)
    read_on(cache, lease, tokens)
    assert cache.tier is not None
    cache.tier.step()
    lease.holder.node.checkpoint = None
    lease.sequence.prefill(tokens[PART : 2 * PART])
    assert isinstance(begun(cache, said(5)), Lease)  # the tree catches up
    answer_all(cache, disk)
    stored = {r.end for x in disk.shelf.ids() if (r := disk.shelf.get(x).record).kind != "segment"}
    assert stored == {n.end for n in nodes(cache) if n.shelved_checkpoint} == {PART}
