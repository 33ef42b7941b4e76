"""A conversation holds few arrays, however long it gets; MLX keeps what it is allowed to."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import zoo
from turn_requests import marks_of, turn, words

from everwarm.cache.cache import Cache
from everwarm.config import Settings
from everwarm.engine import layers
from everwarm.engine.buffers import n_buffers
from everwarm.engine.machine_memory import limit_mlx
from everwarm.engine.state import ModelState

TURNS = 30
A_PIECE = 3
"""Buffers of a piece: one for all keys and values, one or two for what other layers hold."""


def cache_of(family: str) -> tuple[Cache, int]:
    """A cache, and how many arrays one state of it has."""
    model: Any = zoo.build(family)[0]
    cache = Cache(lambda: ModelState(model), budget=1 << 34)
    turn(cache, asked := words(9999, 60), marks_of(asked))
    own = len(layers.arrays(cache.memory.states[0].sequence.live.leaves))  # type: ignore[attr-defined]
    return Cache(lambda: ModelState(model), budget=1 << 34), own


def buffers_of_checkpoints(cache: Cache) -> int:
    pieces = [n.checkpoint for n in cache.memory.nodes() if n.checkpoint is not None]
    return sum(p.n_buffers for p in pieces)  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["llama", "qwen3_5", "gemma3_text"])
def test_a_long_conversation_adds_no_arrays(family: str) -> None:
    cache, own = cache_of(family)
    history: list[int] = []
    seen: list[int] = []
    for n in range(TURNS):
        asked = history + words(n, 40)
        history = asked + turn(cache, asked, marks_of(asked)).reply
        assert n_buffers(cache.memory) == own + buffers_of_checkpoints(cache)
        seen.append(n_buffers(cache.memory))
    pieces = [n.checkpoint for n in cache.memory.nodes() if n.checkpoint is not None]
    assert all(p.n_buffers <= A_PIECE for p in pieces)  # type: ignore[attr-defined]
    assert max(seen) <= own + A_PIECE * (cache.policy.max_checkpoints + cache.policy.max_in_head)


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_each_regenerated_reply_adds_few_pieces(family: str) -> None:
    cache, own = cache_of(family)
    asked = words(1, 80)
    turn(cache, asked, marks_of(asked))
    for n in range(20):
        before = n_buffers(cache.memory)
        turn(cache, asked + words(50 + n, 30), marks_of(asked))
        added = n_buffers(cache.memory) - before
        assert added <= (own if n == 0 else 0) + 3 * A_PIECE


def test_a_count_finds_what_a_leak_would_add() -> None:
    cache, _ = cache_of("llama")
    turn(cache, asked := words(1, 80), marks_of(asked))
    before = n_buffers(cache.memory)
    node = cache.memory.states[0].node
    node.checkpoint = cache.memory.states[0].sequence.cut(0, 10)
    assert n_buffers(cache.memory) == before + 1


def test_a_limit_without_an_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        limit_mlx(Settings())
        assert caplog.text == ""
        limit_mlx(Settings(wired_limit=10**9))
    assert "wired_limit=1000000000 has no effect" in caplog.text
