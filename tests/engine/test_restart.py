"""Conversations of every cache family survive the process: a new one reads only what is new."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zoo
from turn_requests import CUTTABLE, OTHERS, Turn, marks_of, turn, words

from everwarm.cache.cache import Cache
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.health import DiskLimits
from everwarm.cache.disk.tier import DiskTier
from everwarm.engine.state import ModelState
from everwarm.job import Path as TokenPath
from everwarm.tokens import tokens_of

MODEL = bytes(range(32))


def opened(model: Any, root: Path, fingerprint: bytes = MODEL) -> Cache:
    """A cache with a disk tier, as a new process would have it."""
    tier = DiskTier(DiskStore.open(root), fingerprint, lambda: None)
    return Cache(lambda: ModelState(model), budget=1 << 34, tier=tier)


def closed(cache: Cache) -> None:
    """Write everything, and give the directory back."""
    assert cache.tier is not None
    until = time.monotonic() + 30
    while not cache.tier.is_idle:
        assert time.monotonic() < until
        cache.tier.step()
    cache.tier.close(5)


def talk(cache: Cache, n: int, history: list[int]) -> tuple[list[int], Turn]:
    """One more turn; the history with its reply."""
    asked = history + words(n, 80)
    done = turn(cache, asked, marks_of(asked))
    return asked + done.reply, done


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_a_new_process_reads_only_what_is_new(family: str, tmp_path: Path) -> None:
    model: Any = zoo.build(family)[0]
    first = opened(model, tmp_path)
    history: list[int] = []
    for n in range(3):
        history, _ = talk(first, n, history)
    closed(first)
    again = opened(model, tmp_path)
    back = turn(again, asked := history + words(9, 30), marks_of(asked))
    cold = turn(Cache(lambda: ModelState(model), budget=1 << 34, keep=False), asked)
    assert back.cached_from == "disk"
    assert back.prefilled == 30
    assert back.reply.agrees(cold.reply)
    closed(again)


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_old_turns_can_be_regenerated_and_branched_after_a_restart(
    family: str, tmp_path: Path
) -> None:
    model: Any = zoo.build(family)[0]
    first = opened(model, tmp_path)
    after_one, _ = talk(first, 1, [])
    history, second = talk(first, 2, after_one)
    talk(first, 3, history)
    closed(first)
    again = opened(model, tmp_path)
    asked = after_one + words(2, 80)
    regenerated = turn(again, asked, marks_of(asked))
    assert regenerated.prefilled == (1 if family in CUTTABLE else 3)
    assert regenerated.reply.agrees(second.reply)
    other = after_one + words(7, 40)
    assert turn(again, other, marks_of(other)).prefilled == 40
    closed(again)


def test_another_model_finds_nothing(tmp_path: Path) -> None:
    model: Any = zoo.build("llama")[0]
    first = opened(model, tmp_path)
    history, _ = talk(first, 1, [])
    closed(first)
    again = opened(model, tmp_path, fingerprint=bytes(32))
    assert turn(again, history + words(2, 10)).cached == 0
    closed(again)


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_a_damaged_file_costs_time_only(family: str, tmp_path: Path) -> None:
    model: Any = zoo.build(family)[0]
    first = opened(model, tmp_path)
    history, _ = talk(first, 1, [])
    history, _ = talk(first, 2, history)
    closed(first)
    for path in (tmp_path / "pieces").glob("*.kv"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    again = opened(model, tmp_path)
    asked = history + words(3, 30)
    done = turn(again, asked, marks_of(asked))
    cold = turn(Cache(lambda: ModelState(model), budget=1 << 34, keep=False), asked)
    assert done.prefilled == len(asked) and done.reply.agrees(cold.reply)
    closed(again)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5"])
def test_what_memory_lets_go_comes_back_from_disk(family: str, tmp_path: Path) -> None:
    model: Any = zoo.build(family)[0]
    cache = opened(model, tmp_path)
    history, _ = talk(cache, 1, [])
    assert cache.tier is not None
    while not cache.tier.is_idle:
        cache.tier.step()
    cache.memory.budget = 0
    cache.evict()
    assert cache.stats()["states"] == 0
    cache.memory.budget = 1 << 34
    back = turn(cache, history + words(2, 30), [])
    assert (back.cached_from, back.prefilled, back.unseen) == ("disk", 30, 30)
    closed(cache)


def test_rows_leave_in_parts_that_a_running_reply_does_not_feel(tmp_path: Path) -> None:
    model: Any = zoo.build("llama")[0]
    tier = DiskTier(DiskStore.open(tmp_path), MODEL, lambda: None, most_bytes=20_000)
    cache = Cache(lambda: ModelState(model), budget=1 << 34, tier=tier)
    history, _ = talk(cache, 1, words(0, 300))
    closed(cache)
    sizes = [p.stat().st_size for p in (tmp_path / "pieces").glob("*.kv")]
    assert len(sizes) > 10 and max(sizes) < 20_000 + 4096
    again = opened(model, tmp_path)
    assert turn(again, history + words(2, 10)).prefilled == 10
    closed(again)


def tidied(cache: Cache) -> None:
    """What the engine does when nothing has run for a while."""
    assert cache.tier is not None
    until = time.monotonic() + 30
    while not (cache.tier.is_tidy and cache.tier._joining is None):
        assert time.monotonic() < until
        cache.tier.tidy()
        time.sleep(0.001)


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_short_turns_are_joined_at_rest_and_come_back(family: str, tmp_path: Path) -> None:
    model: Any = zoo.build(family)[0]
    cache = opened(model, tmp_path)
    assert cache.tier is not None
    history: list[int] = []
    ends = []
    for n in range(6):
        asked = history + words(n, 780)
        history = asked + turn(cache, asked, marks_of(asked)).reply
        ends.append(len(history))
        while not cache.tier.is_idle:
            cache.tier.step()
    before = len(list((tmp_path / "pieces").glob("*.kv")))
    tidied(cache)
    after = len(list((tmp_path / "pieces").glob("*.kv")))
    assert after == before - 5, "six turns' rows up to 4,096 are one file now"
    rows = [s.record for s in cache.tier._store.pieces(MODEL) if s.record.kind == "segment"]
    assert min(r.end for r in rows) == 40, "the system prompt stays a file of its own"
    cache.memory.budget = 0
    cache.evict()
    cache.memory.budget = 1 << 34
    asked = history[: ends[2]] + words(50, 30)
    back = turn(cache, asked, marks_of(asked))
    assert (back.cached_from, back.prefilled) == ("disk", 30)
    closed(cache)
    again = opened(model, tmp_path)
    asked = history + words(60, 30)
    back = turn(again, asked, marks_of(asked))
    cold = turn(Cache(lambda: ModelState(model), budget=1 << 34, keep=False), asked)
    assert (back.cached_from, back.prefilled) == ("disk", 30)
    assert back.reply.agrees(cold.reply)
    closed(again)


def test_a_turn_writes_its_own_tokens_and_nothing_again(tmp_path: Path) -> None:
    model: Any = zoo.build("llama")[0]
    cache = opened(model, tmp_path)
    assert cache.tier is not None
    history: list[int] = []
    written = []
    for n in range(4):
        history, _ = talk(cache, n, history)
        while not cache.tier.is_idle:
            cache.tier.step()
        written.append(cache.tier.stats().nbytes)
    row = 3 * 2 * 2 * 16 * 4  # layers, keys and values, heads, width, bytes
    for before, after in pairwise(written):
        assert after - before < 1.15 * 86 * row + 8192
    closed(cache)


def test_a_conversation_that_goes_on_stays_on_disk_when_others_must_go(tmp_path: Path) -> None:
    model: Any = zoo.build("llama")[0]
    limits = DiskLimits(budget_bytes=600_000, keep_free_bytes=0)
    tier = DiskTier(DiskStore.open(tmp_path, limits=limits), MODEL, lambda: None)
    cache = Cache(lambda: ModelState(model), budget=1 << 34, tier=tier)
    history, _ = talk(cache, 1, [])
    for n in range(2, 9):
        turn(cache, other := words(100 + n, 120), marks_of(other))
        history, _ = talk(cache, n, history)
        while not tier.is_idle:
            tier.step()
    closed(cache)
    again = opened(model, tmp_path)
    back = turn(again, asked := history + words(50, 20), marks_of(asked))
    assert back.prefilled == 20
    closed(again)


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_a_tail_that_was_cut_before_it_was_written_is_written_all_the_same(
    family: str, tmp_path: Path
) -> None:
    model: Any = zoo.build(family)[0]
    cache = opened(model, tmp_path)
    after_one, _ = talk(cache, 1, [])
    long, _ = talk(cache, 2, after_one)
    other, _ = talk(cache, 3, after_one)
    closed(cache)
    again = opened(model, tmp_path)
    for n, history in enumerate((long, other)):
        asked = history + words(50 + n, 30)
        back = turn(again, asked, marks_of(asked))
        assert back.prefilled == 30
    closed(again)


def test_a_tail_that_was_forgotten_is_not_written(tmp_path: Path) -> None:
    model: Any = zoo.build("llama")[0]
    cache = opened(model, tmp_path)
    after_one, _ = talk(cache, 1, [])
    long, _ = talk(cache, 2, after_one)
    talk(cache, 3, after_one)
    cache.drop([TokenPath("", tokens_of(long), len(after_one))])
    closed(cache)
    again = opened(model, tmp_path)
    asked = long + words(50, 30)
    assert turn(again, asked, marks_of(asked)).prefilled == len(asked) - len(after_one)
    closed(again)


def test_a_conversation_that_nearly_fills_the_budget_comes_back_a_file_at_a_time(
    tmp_path: Path,
) -> None:
    model: Any = zoo.build("llama")[0]
    first = opened(model, tmp_path)
    assert first.tier is not None
    history: list[int] = []
    for n in range(6):
        history, _ = talk(first, n, history)
        while not first.tier.is_idle:  # a file for each turn
            first.tier.step()
    closed(first)
    row = 3 * 2 * 2 * 16 * 4  # layers, keys and values, heads, width, bytes
    state, file = row * (len(history) + 30 + 256), row * 90
    tier = DiskTier(DiskStore.open(tmp_path), MODEL, lambda: None)
    again = Cache(
        lambda: ModelState(model),
        budget=state + 3 * file,
        bytes_at=lambda rows: row * (rows + 256),
        tier=tier,
    )
    back = turn(again, asked := history + words(9, 20), marks_of(asked))
    assert (back.cached_from, back.prefilled) == ("disk", 20)
    closed(again)
