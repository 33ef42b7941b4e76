"""Turns that branch off before the disk has written what they branch off from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import zoo
from test_restart import closed, opened, talk
from turns import CUTTABLE, OTHERS, marks_of, turn, words

from everwarm.job import Path as TokenPath
from everwarm.tokens import tokens_of


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
    cache.forget(TokenPath("", tokens_of(long), len(after_one)))
    closed(cache)
    again = opened(model, tmp_path)
    asked = long + words(50, 30)
    assert turn(again, asked, marks_of(asked)).prefilled == len(asked) - len(after_one)
    closed(again)
