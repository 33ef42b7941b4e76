"""`bench session`: a made-up agent session, and what it counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.client import ChatClient
from everwarm.errors import ConfigError, EngineError
from everwarm.lab import report, session_report
from everwarm.lab.long_session import SessionPlan, SessionRun
from everwarm.lab.result import Result, load, new, refuse_to_lose
from everwarm.lab.shapes import make_model


def hold(model: Path, out: Path, *flags: str) -> dict[str, Any]:
    args = ["bench", "session", "--model", str(model), "--out", str(out), "--json", "--pause", "0"]
    done = CliRunner().invoke(app, [*args, *flags], catch_exceptions=False)
    assert done.exit_code == 0
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("shape", ["llama-2x1", "qwen3_5-4"])
def test_a_session_reads_hardly_more_than_what_is_new(
    shape: str, smollm2: Path, tmp_path: Path
) -> None:
    model = make_model(shape, tmp_path / shape, smollm2)
    told = hold(model, tmp_path, "--messages", "40", "--to", "4000", "--seed", "10")
    summary, rows = told["summary"], told["rows"]
    assert told["complete"] and summary["messages"] >= 39
    assert {"user", "tool", "side", "subagent", "edit"} <= set(summary["kinds"])
    assert summary["hit_rate_by_request"] >= 0.98 and summary["misses"] == []
    assert summary["cache_ratio"] <= 1.02
    assert all(r["prefilled_tokens"] + r["cached_tokens"] == r["prompt_tokens"] for r in rows)
    calling = [r for r in rows if r["called"]]
    assert len(calling) > len(rows) / 2, "replies with calls came back as calls"
    assert summary["cached_tokens"] > 5 * summary["prefilled_tokens"]
    text = (tmp_path / "session.md").read_text()
    assert "mlx-soloheaven's published session" in text
    assert f"{summary['hits']} of {summary['requests']} requests hit" in text


def test_equal_seeds_make_equal_sessions(smollm2: Path, tmp_path: Path) -> None:
    model = make_model("gemma3-4x1", tmp_path / "m", smollm2)
    flags = ["--messages", "16", "--to", "2000"]
    one, two = (hold(model, tmp_path / n, *flags)["rows"] for n in ("a", "b"))
    counts = ("kind", "prompt_tokens", "prefilled_tokens", "completion_tokens")
    assert [[r[c] for c in counts] for r in one] == [[r[c] for c in counts] for r in two]


def test_a_session_longer_than_the_model_is_refused(smollm2: Path, tmp_path: Path) -> None:
    model = make_model("llama-2x1", tmp_path / "m", smollm2)
    with pytest.raises(ConfigError, match="takes 262,144 tokens; give a smaller --to"):
        hold(model, tmp_path, "--to", "262000")


def test_a_server_that_does_not_tell_what_it_read_is_refused() -> None:
    with (
        ChatClient("http://test", transport=FakeServer().transport) as client,
        pytest.raises(EngineError, match="does not tell what it read"),
    ):
        SessionRun(client, SessionPlan(), new("session", "fake", SessionPlan()))


def row(read: int, unseen: int, **more: Any) -> dict[str, Any]:
    made = {"kind": "tool", "messages": 3, "prompt_tokens": 10_000, "ttft_s": read / 1000}
    counts = {"prefilled_tokens": read, "unseen_tokens": unseen, "new_tokens": unseen}
    return made | counts | {"cached_tokens": 10_000 - read} | more


def test_a_hit_reads_two_hundredths_and_64_tokens_more_at_most() -> None:
    assert session_report.is_hit(row(1084, 1000))
    assert not session_report.is_hit(row(1085, 1000))


def test_the_summary_counts_requests_tokens_and_buckets() -> None:
    rows = [row(100, 100), row(600, 500), row(499, 499), row(9000, 100, kind="edit")]
    s = session_report.summary(rows)
    assert (s["requests"], s["hits"]) == (4, 2)
    assert s["cache_ratio"] == pytest.approx(10_199 / 1199)
    assert s["again"] == 100 + 8900
    assert s["hit_rate_by_token"] == pytest.approx(1 - 10_199 / 40_000)
    assert [(t["read"], t["requests"]) for t in s["ttft"]] == [
        ("fewer than 500", 2),
        ("500 to 4,999", 1),
        ("5,000 or more", 1),
    ]
    assert Counter(m["kind"] for m in s["misses"]) == {"tool": 1, "edit": 1}


def test_an_empty_session_has_a_report(tmp_path: Path) -> None:
    result = Result(benchmark="session", model="m", plan={})
    made = session_report.session_report(result, tmp_path)
    report.write(made, tmp_path, "session")
    assert "This run was interrupted" in (tmp_path / "session.md").read_text()


def test_ctrl_c_leaves_a_result_that_can_be_gone_on_with(tmp_path: Path) -> None:
    plan, path = SessionPlan(messages=12, to=1000, pause_s=0), tmp_path / "session.json"

    def measure(server: FakeServer, result: Result) -> Result:
        with ChatClient("http://test", transport=server.transport) as client:
            for _ in SessionRun(client, plan, result).measured():
                result.save(path)
        return result

    whole = measure(FakeServer(ours=True), new("session", "fake", plan))
    with pytest.raises(KeyboardInterrupt):
        measure(FakeServer(ours=True, stop_at=4), new("session", "fake", plan))
    part = load(path, "session")
    assert len(part.rows) == 3 and not part.complete
    with pytest.raises(ConfigError, match="--resume"):
        refuse_to_lose(path, "session")
    measure(FakeServer(ours=True), part)
    counts = ("kind", "prompt_tokens", "prefilled_tokens")
    assert part.complete
    assert [[r[c] for c in counts] for r in part.rows] == [
        [r[c] for c in counts] for r in whole.rows
    ]
