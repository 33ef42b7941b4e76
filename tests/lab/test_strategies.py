"""`bench strategies`: one conversation under each way of keeping it, what it costs and recalls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zoo
from fake_server import FakeServer
from serving import save_talker
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.cli.reasoning import with_reasoning
from everwarm.client import ChatClient
from everwarm.errors import ConfigError, EngineError
from everwarm.lab import plots, report
from everwarm.lab import result as results
from everwarm.lab.strategies import (
    FACTS,
    StrategiesPlan,
    StrategiesRun,
    Strategy,
    dictated,
    strategies,
)
from everwarm.lab.strategies_report import strategies_report, summary

PLAN = StrategiesPlan(turns=4)


class Knows(FakeServer):
    """A server whose answers to questions hold what was told in their prompt."""

    def _chat(self, body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        told = {m["content"] for m in body["messages"][:-1]}
        for question, answer, word in FACTS:
            if asked == question and answer in told:
                body = body | {"everwarm": {"reply": f"It is {word.upper()}."}}
        return super()._chat(body)


def measure(
    plan: StrategiesPlan = PLAN,
    result: results.Result | None = None,
    refused: tuple[str, ...] = (),
    together: int = 3,
    stop_at: int | None = None,
) -> results.Result:
    @contextmanager
    def serve(s: Strategy) -> Iterator[ChatClient]:
        if s.key in refused:
            raise EngineError("kv_bits is for other layers")
        fake = Knows(ours=True, stop_at=stop_at if s.key == "template" else None)
        with ChatClient("http://test", transport=fake.transport) as client:
            yield client

    result = result or results.new("strategies", "fake", plan)
    for _ in StrategiesRun(serve, plan, result, together=together).measured():
        pass
    return result


def write(result: results.Result, out: Path) -> None:
    report.write(strategies_report(result, out), out, "strategies")


def test_every_strategy_is_measured_and_asked_for_every_fact() -> None:
    result = measure()
    made = summary(result.rows, result.plan)
    assert result.complete
    assert [x["strategy"] for x in made["strategies"]] == [s.key for s in strategies(PLAN)]
    for line in made["strategies"]:
        assert line["recalled"] == len(FACTS)
        assert all(v is not None for k, v in line.items() if k != "refused"), line
    assert len(made["findings"]) == 6


def test_all_strategies_hold_the_same_conversation_but_for_the_budget() -> None:
    rows = [r for r in measure().rows if r["kind"] == "turn"]
    prompts = {
        s.key: [r["completion_tokens"] for r in rows if r["strategy"] == s.key]
        for s in strategies(PLAN)
    }
    short = prompts.pop("budget")
    assert len({tuple(p) for p in prompts.values()}) == 1
    assert all(a < b for a, b in zip(short, prompts["warm"], strict=True))


def test_a_budget_leaves_the_answer_and_so_many_words_of_reasoning() -> None:
    whole, cut = (dictated(PLAN, 3, cut=cut) for cut in (False, True))
    assert whole.split("</think>")[1] == cut.split("</think>")[1]
    kept = cut.split("</think>")[0].split()
    assert len(kept) == 1 + PLAN.budget and whole.split()[: len(kept)] == kept


def test_what_layers_cannot_do_is_a_row_that_says_so(tmp_path: Path) -> None:
    result = measure(refused=("kv8", "kv4"))
    assert result.complete
    write(result, tmp_path)
    text = (tmp_path / "strategies.md").read_text()
    assert text.count("refused") >= 2 and "kv_bits is for other layers" in text
    assert len(summary(result.rows, result.plan)["findings"]) == 4


@pytest.mark.parametrize("together", [1, 2, 7])
def test_an_interrupted_run_goes_on_with_what_was_not_whole(together: int, tmp_path: Path) -> None:
    part, path = results.new("strategies", "fake", PLAN), tmp_path / "strategies.json"
    with pytest.raises(KeyboardInterrupt):
        measure(result=part, together=together, stop_at=5)
    part.save(path)
    write(part, tmp_path)
    assert "interrupted" in (tmp_path / "strategies.md").read_text()
    done = measure(result=results.load(path, "strategies"), together=together)
    whole = measure()
    assert done.complete

    def of(result: results.Result) -> list[tuple[str, ...]]:
        return sorted((r["strategy"], r["kind"], str(r.get("turn"))) for r in result.rows)

    assert of(done) == of(whole)


def test_the_report_says_which_figures_are_whose(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(measure(), tmp_path)
    page = (tmp_path / "strategies.html").read_text()
    assert "its authors&#x27; figures" in page and "71.9 s" in page
    assert page.count("<picture>") == 1 and page.count("Published: ") == 6
    assert plots.available() and (tmp_path / "strategies-dark.png").exists()


def test_a_model_without_reasoning_is_respelled_and_keeps_its_weights(
    smollm2: Path, tmp_path: Path
) -> None:
    made, respelled = with_reasoning(str(smollm2), tmp_path)
    assert respelled and (Path(made) / "model.safetensors").samefile(smollm2 / "model.safetensors")
    words = [
        {
            t["content"]: t["id"]
            for t in json.loads((d / "tokenizer.json").read_text())["added_tokens"]
        }
        for d in (smollm2, Path(made))
    ]
    assert sorted(words[0].values()) == sorted(words[1].values())
    assert set(words[1]) - set(words[0]) == {"<think>", "</think>"}
    assert with_reasoning(made, tmp_path) == (made, False)


def test_a_model_that_reasons_is_left_alone(smollm2: Path, tmp_path: Path) -> None:
    talker = str(save_talker(tmp_path, smollm2))
    assert with_reasoning(talker, tmp_path) == (talker, False)


def test_a_model_without_a_control_token_to_spare_is_refused(smollm2: Path, tmp_path: Path) -> None:
    path = zoo.save("llama", tmp_path / "tiny", smollm2)
    told = json.loads((path / "tokenizer.json").read_text())
    told["added_tokens"] = told["added_tokens"][:3]
    (path / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="no two control tokens to spare"):
        with_reasoning(str(path), tmp_path / "out")


def test_real_servers_are_measured_from_the_command_line(smollm2: Path, tmp_path: Path) -> None:
    model = zoo.save("llama", tmp_path / "tiny", smollm2, head_dim=32)
    out = tmp_path / "out"
    args = ["bench", "strategies", "--turns", "4", "--window", "64", "--kv-group-size", "32"]
    args += ["--sentences", "2", "--model", str(model), "--out", str(out), "--json"]
    done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    lines = {x["strategy"]: x for x in told["strategies"]}
    assert told["complete"] and len(lines) == 7
    rows = told["rows"]
    turns = {k: [r for r in rows if r["strategy"] == k and r["kind"] == "turn"] for k in lines}
    assert all(r["cached_tokens"] == 0 for r in turns["none"])
    for key in ("warm", "budget", "kv8", "kv4", "window"):
        for before, row in zip(turns[key], turns[key][1:], strict=False):
            had = before["prompt_tokens"] + before["completion_tokens"]
            assert row["cached_tokens"] == had, key
    assert lines["template"]["prefilled_tokens"] > lines["warm"]["prefilled_tokens"]
    assert lines["template"]["conversation_tokens"] < lines["warm"]["conversation_tokens"]
    assert lines["budget"]["conversation_tokens"] < lines["warm"]["conversation_tokens"]
    assert lines["window"]["cache_tokens"] == 64
    assert lines["kv4"]["cache_bytes"] < lines["kv8"]["cache_bytes"] < lines["warm"]["cache_bytes"]


def test_a_model_whose_layers_cannot_do_it_has_rows_that_say_why(
    smollm2: Path, tmp_path: Path
) -> None:
    model = zoo.save("qwen3_5", tmp_path / "tiny", smollm2)
    out = tmp_path / "out"
    args = ["bench", "strategies", "--turns", "4", "--sentences", "1", "--model", str(model)]
    done = CliRunner().invoke(app, [*args, "--out", str(out), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    why = {x["strategy"]: x["refused"] for x in json.loads(done.stdout)["strategies"]}
    assert "max_kv_size" in why["window"] and "kv_group_size" in why["kv8"]
    assert why["warm"] is None
