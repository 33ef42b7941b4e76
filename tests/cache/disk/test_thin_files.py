"""A long conversation's checkpoints stay few on disk, and the right ones: on the oracle."""

from __future__ import annotations

import pytest
from held_disk import HeldDisk

from everwarm.cache.cache import Cache
from everwarm.cache.disk.next_write import KEPT
from everwarm.cache.disk.tier import DiskTier
from everwarm.cache.policy import CachePolicy
from everwarm.cache.tree import Node
from everwarm.testing import ORACLES, OracleRun, OracleState, reply_to
from everwarm.tokens import Mark, Tokens, tokens_of

RULES = CachePolicy()
LAYERS = ORACLES["hybrid"]
SYSTEM = 40


def started(disk: HeldDisk, budget: int = 1 << 30, rules: CachePolicy = RULES) -> Cache:
    tier = DiskTier(disk, bytes(32), lambda: None)  # type: ignore[arg-type]
    return Cache(lambda: OracleState(LAYERS), budget=budget, tier=tier, policy=rules)


def keep_up(cache: Cache, disk: HeldDisk) -> None:
    """Let the disk do all that is asked of it."""
    assert cache.tier is not None
    cache.tier.step()
    while disk.held or cache.tier.writing_nbytes:
        if disk.held:
            disk.answer(0, "well")
        cache.tier.step()


def turn(cache: Cache, disk: HeldDisk, history: Tokens[int], seed: int) -> Tokens[int]:
    """One more turn, which goes to disk; the history with its reply."""
    said = tokens_of(10 + (seed * 997 + i * i) % 3000 for i in range(30))
    asked = history + said
    user = [Mark(len(history), "user")] if len(history) > SYSTEM else []
    marks = (Mark(SYSTEM, "system"), *user, Mark(len(asked) - 2, "prompt"))
    run = OracleRun(cache, asked, marks)
    while not run.over:
        if not run.step():
            keep_up(cache, disk)
    assert run.reply == reply_to(asked, LAYERS, len(run.reply))
    keep_up(cache, disk)
    return asked + tokens_of(run.reply)


def talk(cache: Cache, disk: HeldDisk, turns: int) -> Tokens[int]:
    history = tokens_of(range(1, 1 + SYSTEM))
    for n in range(turns):
        history = turn(cache, disk, history, n)
    return history


def nodes(cache: Cache) -> list[Node]:
    return [n for root in cache.roots.values() for n in root.below()]


def on_disk(disk: HeldDisk) -> list[int]:
    """Where the checkpoints stand whose files are there."""
    stored = [disk.shelf.get(x).record for x in disk.shelf.ids()]
    return sorted(r.end for r in stored if r.kind == "checkpoint")


@pytest.mark.parametrize("budget", [1 << 30, 60_000])
def test_checkpoints_of_a_long_conversation_stay_few_on_disk(budget: int) -> None:
    disk = HeldDisk()
    cache = started(disk, budget)
    history = talk(cache, disk, 60)
    found = on_disk(disk)
    assert len([at for at in found if at > SYSTEM]) <= RULES.max_checkpoints
    assert len(history) in found and SYSTEM in found
    assert found == sorted(n.end for n in nodes(cache) if n.shelved_checkpoint)


def test_a_restart_finds_all_positions_again_that_memory_has() -> None:
    disk = HeldDisk()
    cache = started(disk)
    talk(cache, disk, 40)
    before = {n.end for n in nodes(cache) if n.checkpoint is not None and n.kind in KEPT}
    again = started(disk)
    assert len(before) > 8 and {n.end for n in nodes(again) if n.shelved_checkpoint} >= before


def test_a_restart_thins_what_was_kept_before_there_was_a_rule() -> None:
    disk = HeldDisk()
    cache = started(disk, rules=CachePolicy(max_checkpoints=1000))
    history = talk(cache, disk, 40)
    assert len(on_disk(disk)) > 40
    again = started(disk)
    turn(again, disk, history, 99)
    assert len(on_disk(disk)) <= RULES.max_checkpoints + 1


def test_a_pinned_checkpoint_stays_on_disk() -> None:
    disk = HeldDisk()
    cache = started(disk)
    history = talk(cache, disk, 3)
    pinned = next(n for n in nodes(cache) if n.end == len(history))
    pinned.is_pinned = True
    for n in range(40):
        history = turn(cache, disk, history, 100 + n)
    assert pinned.end in on_disk(disk)


def test_a_file_that_is_thinned_while_it_is_read_costs_a_cold_read_and_no_answer() -> None:
    disk = HeldDisk()
    history = talk(started(disk), disk, 6)
    cache = started(disk)
    asked = history[: len(history) - 36] + tokens_of(range(500, 530))
    run = OracleRun(cache, asked, (Mark(SYSTEM, "system"),))
    while not disk.held:
        run.step()
    wanted = [n.shelved_checkpoint for n in nodes(cache) if n.shelved_checkpoint]
    disk.delete([p.file_id for p in wanted])
    while not run.over:
        if not run.step():
            keep_up(cache, disk)
    assert run.reply == reply_to(asked, LAYERS, len(run.reply))
