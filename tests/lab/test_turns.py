"""`bench turns`: what is sent, what is counted, and what an interruption leaves."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import zoo
from fake_server import FakeServer
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.client import ChatClient
from everwarm.errors import ConfigError
from everwarm.lab import result as results
from everwarm.lab.turns import ReadingPace, Talk, TurnsPlan, TurnsRun
from everwarm.lab.turns_report import summary


def run(server: FakeServer, plan: TurnsPlan, result: Any = None, **more: Any) -> Any:
    result = result or results.new("turns", "fake", plan)
    with ChatClient("http://test", transport=server.transport) as client:
        for _ in TurnsRun(client, plan, result, **more).measured():
            pass
    return result


def test_each_turn_reads_only_what_is_new_and_a_cold_one_reads_everything() -> None:
    result = run(FakeServer(), TurnsPlan(to=4000, turns=8, questions=2))
    assert result.complete
    rows = result.rows
    assert rows[-1]["prompt_tokens"] >= 4000
    for before, row in itertools.pairwise(rows):
        if row["kind"] == "cold":
            assert row["cached_tokens"] <= 2
            assert row["prompt_tokens"] > before["prompt_tokens"]
        elif row["kind"] == "question":
            assert row["prefilled_tokens"] < 40
    assert {r["turn"] for r in rows if r["kind"] == "cold"} >= {1, 2, 4, rows[-1]["turn"]}


def test_turns_grow_as_much_as_was_asked_for_whatever_a_token_is() -> None:
    rows = run(FakeServer(), TurnsPlan(to=8000, turns=10, questions=1, cold=False)).rows
    grown = [r["prefilled_tokens"] for r in rows if r["kind"] == "grow"]
    assert 640 < statistics.median(grown) < 960, grown


def test_the_floor_is_asked_for_the_same_suffix_at_the_same_depth() -> None:
    asked: list[tuple[int, int]] = []

    def floor(depth: int, suffix: int) -> float:
        asked.append((depth, suffix))
        return 0.5

    result = run(FakeServer(), TurnsPlan(to=500, turns=2, questions=2, cold=False), floor=floor)
    questions = [r for r in result.rows if r["kind"] == "question"]
    assert asked == [(r["cached_tokens"], r["prefilled_tokens"]) for r in questions]
    sample = summary(result.rows)["samples"][0]
    assert sample["floor_s"] == 0.5
    assert sample["over_floor_s"] == pytest.approx(sample["warm_s"] - 0.5, abs=0.01)


def test_a_conversation_stays_below_what_the_model_takes() -> None:
    result = run(FakeServer(), TurnsPlan(to=100_000, questions=1), limit=3000)
    assert result.complete and max(r["prompt_tokens"] for r in result.rows) < 3000


def test_without_a_goal_the_run_ends_with_its_time() -> None:
    result = run(FakeServer(), TurnsPlan(seconds=1e-3, questions=1))
    assert result.complete
    assert [r["kind"] for r in result.rows] == ["grow", "question", "cold"]


@pytest.mark.parametrize("stop_at", [2, 3, 5, 9])
def test_an_interrupted_run_goes_on_with_the_same_conversation(
    stop_at: int, tmp_path: Path
) -> None:
    plan, path = TurnsPlan(to=2000, turns=4, questions=2), tmp_path / "turns.json"
    part = results.new("turns", "fake", plan)
    with pytest.raises(KeyboardInterrupt):
        run(FakeServer(stop_at=stop_at), plan, part)
    part.save(path)
    with pytest.raises(ConfigError, match="--resume"):
        results.refuse_to_lose(path, "turns")
    done = run(FakeServer(), plan, results.load(path, "turns"))
    whole = run(FakeServer(), plan)
    assert done.complete
    kinds = [(r["kind"], r["turn"]) for r in done.rows]
    assert kinds == [(r["kind"], r["turn"]) for r in whole.rows]


def test_equal_seeds_make_equal_conversations() -> None:
    one, two = Talk(3), Talk(3)
    for talk in (one, two):
        talk.grow(1, 5)
        talk.answered("yes")
        talk.ask(1)
    assert one.messages == two.messages != Talk(4).messages


def test_a_unique_conversation_differs_at_its_start_and_nowhere_else() -> None:
    talk = Talk(0)
    talk.grow(1, 3)
    other = talk.unique("nonce")
    assert other[0]["content"].startswith("nonce")
    assert other[1:] == talk.messages[1:]


def test_pace_tells_what_reading_will_take() -> None:
    pace = ReadingPace()
    for depth in range(0, 10_000, 1000):
        pace.note(depth, 1000, 1000 * (0.001 + 1e-6 * (depth + 500)))
    assert pace.seconds(0, 20_000) == pytest.approx(20 + 1e-6 * 20_000**2 / 2)
    assert ReadingPace().seconds(0, 100) == 0


def test_a_real_server_is_measured_from_the_command_line(smollm2: Path, tmp_path: Path) -> None:
    model = zoo.save("qwen3_5", tmp_path / "tiny", smollm2)
    out = tmp_path / "out"
    args = ["bench", "turns", "--to", "900", "--turns", "2", "--questions", "2", "--json"]
    args += ["--reply-tokens", "4", "--model", str(model), "--out", str(out)]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told == json.loads((out / "turns.json").read_text())
    head = told["summary"]["headline"]
    assert told["complete"] and head["tokens"] >= 900
    assert head["floor_s"] > 0 and head["ratio"] > 0
    for row in told["rows"]:
        assert row["phases"] and row["cache_bytes"] > 0
        if row["kind"] == "question":
            assert row["prefilled_tokens"] < 60
