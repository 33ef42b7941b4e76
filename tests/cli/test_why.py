"""`everwarm why` shows both texts at the first difference."""

from __future__ import annotations

from typing import Any

import pytest

from everwarm.cli.why import diff, lines
from everwarm.events import SCAFFOLD

TURN: dict[str, Any] = {
    "id": "chatcmpl-1",
    "prompt_tokens": 1000,
    "prefilled_tokens": 900,
    "new_tokens": 20,
    "unseen_tokens": 850,
    "again": 880,
    "sticky_reminders": 0,
    "tools_from": "request",
    "miss": None,
}


def test_a_turn_without_a_miss_says_so() -> None:
    assert [t.plain for t in lines(TURN)][-1] == "nothing was read twice"


def test_a_miss_is_said_in_words_and_shown() -> None:
    miss = {
        "at": 100, "part": "system", "cause": "a date changed", "by_text": 830, "by_cache": 50,
        "before": "Hello.\nIt is Monday.\nMore", "after": "Hello.\nIt is Tuesday.\nMore",
    }  # fmt: skip
    shown = [t.plain for t in lines(TURN | {"miss": miss})]
    assert "system, at token 100: a date changed" in shown
    assert "lost by the difference: 830; by the cache: 50" in shown
    assert shown[-5:] == ["  Hello.", "- It is Monday.", "- More", "+ It is Tuesday.", "+ More"]


def test_what_was_read_again_stands_beside_what_was_new() -> None:
    assert "20 were new, 850 never read before; 880 again" in lines(TURN)[1].plain


@pytest.mark.parametrize(
    ("n", "words"), [(1, "a message keeps a reminder"), (3, "3 messages keep reminders")]
)
def test_reminders_that_stay_are_said(n: int, words: str) -> None:
    shown = [t.plain for t in lines(TURN | {"sticky_reminders": n})]
    assert f"{words} that the client took out: what was read stays" in shown
    assert not any("reminder" in t.plain for t in lines(TURN))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("system", "behind a change"),
        ("message 3 (user)", "behind a change"),
        ("tools", "behind a change"),
        (SCAFFOLD, "cannot be cut"),
        ("cache", "evicted"),
        ("branch", "other messages"),
        ("whole prompt", "read once"),
    ],
)
def test_each_exception_is_said_plainly(part: str, said: str) -> None:
    miss = {
        "at": 1,
        "part": part,
        "cause": "",
        "by_text": 0,
        "by_cache": 0,
        "before": "",
        "after": "",
    }
    (line,) = [t.plain for t in lines(TURN | {"miss": miss}) if "exception" in t.plain]
    assert line.startswith("an exception to reading only new tokens: ") and said in line


def test_tools_of_the_conversation_are_said() -> None:
    shown = [t.plain for t in lines(TURN | {"tools_from": "conversation"})]
    assert any("brought no tools" in line for line in shown)


def test_colours_mark_the_two_versions() -> None:
    old, new = diff("same a", "same b")
    assert (old.style, new.style) == ("red", "green")
