"""Recorded sessions become prompts; made-up ones have the statistics of recorded ones."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from everwarm.errors import ConfigError
from everwarm.lab import synthetic, traces
from everwarm.tokens import Mark, common_length


def request(n: int, out: int, ids: list[int], *input_types: str) -> dict[str, Any]:
    return {"in": n, "out": out, "hash_ids": ids, "input_types": list(input_types)}


GOES_ON = {
    "tool_tokens": 60,
    "system_tokens": 40,
    "requests": [
        request(150, 20, [1, 2], "text"),
        request(260, 10, [1, 2, 3, 4], "tool_result"),
        request(330, 10, [1, 2, 3, 4, 5], "text"),
    ],
}


def test_a_prompt_goes_on_behind_the_reply_before_it() -> None:
    first, second, third = traces.session(GOES_ON, "s").turns
    assert [len(t.tokens) for t in (first, second, third)] == [150, 260, 330]
    assert second.tokens[:170] == first.tokens + first.reply
    assert third.tokens[:270] == second.tokens + second.reply
    assert list(first.tokens[:3]) == [64, 65, 66]  # block 1


def test_marks_are_those_of_the_renderer() -> None:
    first, second, third = traces.session(GOES_ON, "s").turns
    assert first.marks == (Mark(100, "system"), Mark(147, "prompt"))
    assert second.marks == (Mark(100, "system"), Mark(170, "last"), Mark(257, "prompt"))
    assert third.marks == (Mark(100, "system"), Mark(270, "user"), Mark(327, "prompt"))


def test_a_persons_message_is_marked_in_later_prompts_too() -> None:
    later = GOES_ON | {"requests": [*GOES_ON["requests"], request(400, 5, [1, 2, 3, 4, 5, 6])]}
    assert Mark(270, "user") in traces.session(later, "s").turns[3].marks


def test_with_templates_a_reply_never_comes_back() -> None:
    first, second, _ = traces.session(GOES_ON, "s", "template").turns
    assert common_length(second.tokens, first.tokens + first.reply) == 150
    assert Mark(150, "last") in second.marks


def test_subagents_take_their_turn_in_time() -> None:
    ask, again = request(64, 5, [9]), request(128, 5, [9, 10])
    sub = {"t": 5.0, "requests": [ask | {"t": 0.0}, again | {"t": 20.0}]}
    main = [r | {"t": 10.0 * i} for i, r in enumerate(GOES_ON["requests"])]
    turns = traces.session({"requests": [*main, sub]}, "s").turns
    assert [len(t.tokens) for t in turns] == [150, 64, 260, 330, 128]
    assert [t.is_first for t in turns] == [True, True, False, False, False]


def test_what_is_no_trace_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no trace here"):
        list(traces.read([tmp_path]))
    (tmp_path / "a.json").write_text(json.dumps({"requests": [{"in": 5}]}))
    with pytest.raises(ConfigError, match=r"a\.json is no trace"):
        list(traces.read([tmp_path]))


def test_equal_seeds_make_equal_sessions() -> None:
    assert synthetic.trace(3) == synthetic.trace(3)
    assert synthetic.trace(3) != synthetic.trace(4)


def test_made_up_sessions_are_like_recorded_ones() -> None:
    grew, rewrote, subagents, n = [], 0, 0, 0
    for seed in range(20):
        raw = synthetic.trace(seed)
        main = [r for r in raw["requests"] if "requests" not in r]
        subagents += len(raw["requests"]) - len(main)
        for a, b in pairwise(main):
            n += 1
            extends = b["hash_ids"][: len(a["hash_ids"])] == a["hash_ids"]
            rewrote += not extends
            grew += [b["in"] - a["in"]] if extends else []
            assert len(b["hash_ids"]) == b["in"] // traces.BLOCK
    assert 700 <= median(grew) <= 1200  # recorded: 825
    assert 0.05 <= rewrote / n <= 0.15  # recorded: 0.10
    assert subagents > 5
