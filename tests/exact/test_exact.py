"""Every cache family that mlx-lm runs here, and every way back: a warm logit is the cold logit."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest
from client_replay import ARRANGED, Warm, arranged, zoo
from operations import OPERATIONS

pytestmark = [
    pytest.mark.exact,
    pytest.mark.skipif(
        os.environ.get("EVERWARM_BLAS") != "reference",
        reason="needs EVERWARM_BLAS=reference, in a process of its own",
    ),
]


@functools.lru_cache(maxsize=1)
def model(family: str) -> Any:
    return zoo.make(zoo.small(family))


WHOLE = {"llama", "gemma3_text", "gpt_oss", "llama4_text", "qwen3_5", "kimi_linear", "mamba",
         "recurrent_gemma", "deepseek_v3", "deepseek_v41"}  # fmt: skip
"""One family, or two, of each combination of caches: every operation. The others get every second
one, in turns; `EVERWARM_EVERY_FAMILY=1` gives them all."""


def cases() -> list[tuple[str, str]]:
    every = bool(os.environ.get("EVERWARM_EVERY_FAMILY"))
    pairs = [(f, o, i + n) for i, f in enumerate(zoo.FAMILIES) for n, o in enumerate(OPERATIONS)]
    return [(f, o) for f, o, turn in pairs if every or f in WHOLE or turn % 2 == 0]


@pytest.mark.parametrize(("family", "operation"), cases())
def test_warm_is_cold(family: str, operation: str) -> None:
    warm = Warm(model(family))
    OPERATIONS[operation](warm)
    assert warm.compared > 50
    assert warm.difference == 0.0


@functools.lru_cache(maxsize=1)
def other_rows(variant: str) -> Any:
    return arranged(variant)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("variant", ARRANGED)
def test_warm_is_cold_with_other_rows(variant: str, operation: str) -> None:
    warm = Warm(other_rows(variant))
    OPERATIONS[operation](warm)
    assert warm.compared > 50
    assert warm.difference == 0.0
