"""Every cache family answers a warm conversation as a cold one, and reads only what is new."""

from __future__ import annotations

from typing import Any

import pytest
import zoo
from turn_requests import CUTTABLE, OTHERS, caches, marks_of, turn, words

from everwarm.cache.cache import Cache
from everwarm.engine.state import ModelState


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_five_turns_read_only_what_is_new(family: str) -> None:
    warm, cold = caches(family)
    history = words(0, 100)
    for n in range(5):
        a = turn(warm, history, marks_of(history))
        assert a.reply.agrees(turn(cold, history).reply)
        assert a.prefilled == a.unseen == (100 if n == 0 else 30)
        history = history + a.reply + words(n + 1, 30)


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_regenerate_edit_and_return_stay_warm(family: str) -> None:
    warm, cold = caches(family)
    first = words(0, 100)
    reply = turn(warm, first, marks_of(first)).reply
    second = first + reply + words(1, 30)
    kept = turn(warm, second, marks_of(second)).reply
    again = turn(warm, second, marks_of(second))
    edited = first + reply + words(2, 30)
    branch = turn(warm, edited, marks_of(edited))
    back = second + kept + words(3, 30)
    returned = turn(warm, back, marks_of(back))
    assert again.reply.agrees(kept)
    assert again.prefilled == (1 if family in CUTTABLE else 3)
    assert branch.reply.agrees(turn(cold, edited).reply)
    assert branch.prefilled == branch.unseen == 30
    assert returned.reply.agrees(turn(cold, back).reply)
    assert returned.prefilled == returned.unseen == 30


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_new_conversation_starts_from_a_shared_system_prompt(family: str) -> None:
    warm, cold = caches(family)
    first = words(0, 300)
    turn(warm, first, marks_of(first))
    other = first[:40] + words(5, 30)
    shared = turn(warm, other, marks_of(other))
    assert shared.reply.agrees(turn(cold, other).reply)
    assert shared.cached_from == "fork"
    assert shared.prefilled == 30


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_cancelled_prefill_is_continued(family: str) -> None:
    warm, cold = caches(family)
    prompt = words(0, 200)
    turn(warm, prompt, marks_of(prompt), steps=3)
    again = turn(warm, prompt, marks_of(prompt))
    assert again.cached == 64  # read before: [0, 32) [32, 40) [40, 64)
    assert again.reply.agrees(turn(cold, prompt).reply)


@pytest.mark.parametrize("family", CUTTABLE + OTHERS)
def test_cancelled_decode_keeps_what_was_read(family: str) -> None:
    warm, cold = caches(family)
    prompt = words(0, 100)
    half = turn(warm, prompt, marks_of(prompt), steps=8).reply
    follow = prompt + half + words(1, 20)
    again = turn(warm, follow, marks_of(follow))
    assert again.reply.agrees(turn(cold, follow).reply)
    assert again.prefilled == 20


def test_hit_moves_no_bytes() -> None:
    warm, _ = caches("llama")
    first = words(0, 400)
    reply = turn(warm, first).reply
    before = addresses(warm)
    turn(warm, first + reply + words(1, 20))
    assert addresses(warm) == before


def addresses(cache: Cache) -> list[int]:
    """Where the cuttable layers' buffers lie; the views are released at once."""
    import numpy as np

    (holder,) = cache.memory.states
    return [
        np.array(a, copy=False).__array_interface__["data"][0]
        for c in holder.sequence.live._cuttable  # type: ignore[attr-defined]
        for a in (c.keys, c.values)
    ]


def test_budget_holds_and_answers_stay_right() -> None:
    model: Any = zoo.build("qwen3_5")[0]
    warm = Cache(lambda: ModelState(model), budget=1_500_000)
    cold = Cache(lambda: ModelState(model), budget=1 << 34, keep=False)
    for n in range(12):
        prompt = words(n % 7, 150)
        assert turn(warm, prompt, marks_of(prompt)).reply.agrees(turn(cold, prompt).reply)
        assert warm.nbytes <= warm.memory.budget


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_no_tokens_asked_for_means_read_only(family: str) -> None:
    warm, _ = caches(family)
    prompt = words(0, 100)
    read = turn(warm, prompt, marks_of(prompt), max_tokens=0)
    again = turn(warm, prompt, marks_of(prompt))
    assert (read.reply, read.prefilled) == ([], 99)
    assert again.prefilled == 1
