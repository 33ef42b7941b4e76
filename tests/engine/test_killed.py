"""An engine that is killed at any moment: the next one reads little again, and says the same."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from doomed import Doomed, Told, doomed, words

from everwarm.testing import ORACLES, OracleState
from everwarm.tokens import tokens_of

MOST_LOST = 4096
"""Tokens that an abort costs at most beyond what is new."""
FEW, PROMPT, REPLY = 20, 12_000, 4500
STEP = 512


@pytest.fixture(scope="module")
def engines() -> Iterator[Doomed]:
    with doomed() as made:
        yield made


def cold(family: str, tokens: list[int], n: int) -> list[int]:
    """What an oracle says that never met a cache. No token stops it."""
    state, out = OracleState(ORACLES[family]), list[int]()
    state.read(tokens_of(tokens))
    for _ in range(n):
        out.append(state.says())
        state.read(tokens_of(out[-1:]))
    return out


def killed_and_asked_again(
    engines: Doomed, family: str, root: Path, prompt: list[int], n: int, kill_at: int,
    wait_s: float, fault: str = "",
) -> tuple[Told, Told, list[int]]:  # fmt: skip
    """Both engines' turns, and what the second was asked: what was there, and FEW new tokens."""
    first = engines.run(family, root, prompt, n, kill_at=kill_at, wait_s=wait_s, fault=fault)
    asked = prompt + first.reply + words(1 << 20, FEW)
    return first, engines.run(family, root, asked, 4), asked


def lost(prompt: list[int], first: Told, second: Told) -> int:
    return first.length(len(prompt)) - second.cached


@pytest.mark.parametrize("family", ORACLES)
def test_a_killed_prefill_is_taken_up_where_it_was(
    family: str, engines: Doomed, tmp_path: Path
) -> None:
    r = random.Random(family)
    for n in range(3):
        prompt = words(n, PROMPT)
        kill_at, wait_s = r.randrange(500, PROMPT - 4 * STEP), r.uniform(0, 0.05)
        first, second, asked = killed_and_asked_again(
            engines, family, tmp_path, prompt, 4, kill_at, wait_s
        )
        assert not first.is_over and first.read < PROMPT
        assert lost(prompt, first, second) <= MOST_LOST
        assert second.reply == cold(family, asked, 4)


@pytest.mark.parametrize("family", ORACLES)
def test_a_killed_reply_is_taken_up_where_it_was(
    family: str, engines: Doomed, tmp_path: Path
) -> None:
    r = random.Random(family)
    prompt = words(77, 3000)
    kill_at = len(prompt) + r.randrange(2500, REPLY)
    first, second, asked = killed_and_asked_again(
        engines, family, tmp_path, prompt, REPLY, kill_at, r.uniform(0, 0.05)
    )
    assert not first.is_over and len(first.reply) > 2000
    assert first.reply == cold(family, prompt, len(first.reply))
    assert lost(prompt, first, second) <= MOST_LOST
    assert second.reply == cold(family, asked, 4)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5"])
def test_a_killed_model_of_every_kind_goes_on(family: str, engines: Doomed, tmp_path: Path) -> None:
    r = random.Random(family)
    prompt = words(5, 5000)
    kill_at = r.randrange(4100, 4600)
    first, second, asked = killed_and_asked_again(
        engines, family, tmp_path / "one", prompt, 4, kill_at, r.uniform(0, 0.05)
    )
    assert not first.reply and lost(prompt, first, second) <= MOST_LOST
    assert second.agrees(engines.run(family, tmp_path / "other", asked, 4))


@pytest.mark.parametrize(
    ("fault", "family"),
    [
        ("never follows", "cuttable"),
        ("rows alone", "hybrid"),
        ("files it elsewhere", "recurrent"),
    ],
)
def test_a_killed_engine_shows(fault: str, family: str, engines: Doomed, tmp_path: Path) -> None:
    """Faults that are planted where rows and checkpoints of a busy state leave for the disk."""
    bad = 0
    for n in range(3):
        prompt = words(n, PROMPT)
        first, second, asked = killed_and_asked_again(
            engines, family, tmp_path, prompt, 4, 2048 * (n + 3), 0.0, fault
        )
        bad += lost(prompt, first, second) > MOST_LOST or second.reply != cold(family, asked, 4)
    assert bad
