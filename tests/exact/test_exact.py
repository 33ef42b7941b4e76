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


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("family", zoo.FAMILIES)
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
