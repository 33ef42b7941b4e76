"""`bench parallel`: several sessions at once on several servers."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import zoo
from fake_server import FakeServer
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.cli.child import running_server
from everwarm.client import ChatClient
from everwarm.errors import ConfigError, EngineError
from everwarm.lab import report
from everwarm.lab.asked_server import AskedServer, together
from everwarm.lab.commands.measure import token_ids, widths
from everwarm.lab.parallel import ParallelPlan, ParallelRun
from everwarm.lab.parallel_report import new_parallel, parallel_report, parallel_summary

PLAN = ParallelPlan(sessions=(1, 3), turns=2, context=100, reply_tokens=4, long=400, rounds=1)


def test_every_session_is_held_at_once_and_counted(smollm2: Path, tmp_path: Path) -> None:
    model = zoo.save("llama", tmp_path / "tiny", smollm2)
    with running_server([str(model)]) as url:
        args = ["bench", "parallel", f"a={url}", f"b={url}", "--sessions", "1,3", "--rounds", "1"]
        args += ["--context", "100", "--reply-tokens", "6", "--long", "2000"]
        args += ["--out", str(tmp_path), "--json"]
        done = CliRunner().invoke(app, args, catch_exceptions=False)
        with ChatClient(url) as client:
            n_jobs = len(client.get("/api/turns?limit=100")["turns"])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    rows = {(r["kind"], r["server"]): r for r in told["rows"]}
    # Each opening is read once, then each session has two turns: 1 + 3 + 3 sessions; and one that
    # is written to, two with a question behind what was read, and the long prompt.
    assert n_jobs == 2 * (3 * (1 + 3 + 3) + 2 + 2 + 2 + 1)
    for server in ("a", "b"):
        assert rows["1 at once", server]["tokens"] == 1 * 2 * 6
        assert rows["3 at once", server]["tokens"] == 3 * 2 * 6
        assert rows["a short question beside a long prompt", server]["ttft_s"] > 0
    assert "| 3 at once |" in (tmp_path / "parallel.md").read_text()
    assert [s["kind"] for s in told["summary"]] == list(dict.fromkeys(k for k, _ in rows))


def test_a_server_that_is_gone_is_in_the_report_and_the_others_go_on(tmp_path: Path) -> None:
    models = {"a": "fake", "b": "fake"}
    with (
        ChatClient("http://test", transport=FakeServer().transport) as a,
        ChatClient("http://127.0.0.1:9") as b,
    ):
        result = new_parallel(models, PLAN)
        servers = [AskedServer(name=n, client=c, model="fake") for n, c in (("a", a), ("b", b))]
        for _ in ParallelRun(servers, PLAN, result).measured():
            pass
    assert {r["server"] for r in result.rows if "error" in r} == {"b"}
    assert all(
        "a" in s["servers"] and "b" not in s["servers"] for s in parallel_summary(result.rows)
    )
    report.write(parallel_report(result, tmp_path), tmp_path, "parallel")
    assert "No server answers at http://127.0.0.1:9" in (tmp_path / "parallel.md").read_text()


def test_calls_run_side_by_side_and_an_error_is_raised_when_all_have_ended() -> None:
    meet, ended = threading.Barrier(2, timeout=30), threading.Event()

    def fails() -> None:
        meet.wait()
        raise EngineError("gone")

    def goes_on() -> None:
        meet.wait()
        ended.set()

    with pytest.raises(EngineError, match="gone"):
        together([fails, goes_on])
    assert ended.is_set()


@pytest.mark.parametrize("text", ["", "0", "1,,2", "65", "a"])
def test_what_is_no_number_of_sessions_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="numbers from 1 to 64"):
        widths(text)
    assert widths("1, 2,8") == (1, 2, 8)


def test_a_day_is_held_with_a_restart_and_replies_of_one_length(
    smollm2: Path, tmp_path: Path
) -> None:
    model = zoo.save("llama", tmp_path / "tiny", smollm2)
    said = tmp_path / "restarted"
    with running_server([str(model)]) as url:
        args = ["bench", "parallel", f"a={url}", f"b={url}", "--day", "--agents", "2"]
        args += ["--turns", "1", "--context", "60", "--reply-tokens", "5", "--end-ids", "2,0"]
        args += ["--restart", f"a=echo again >> {said}", "--rounds", "1"]
        args += ["--out", str(tmp_path), "--json"]
        done = CliRunner().invoke(app, args, catch_exceptions=False)
        with ChatClient(url) as client:
            turns = client.get("/api/turns?limit=100")["turns"]
    assert done.exit_code == 0
    rows = json.loads(done.stdout)["rows"]
    # A question, one more, five calls, a subagent; in the evening three replies: two agents.
    asked = 2 * (1 + 1 + 5 + 1 + 3)
    assert [r["tokens"] for r in rows] == [asked * 5] * 2
    assert len(turns) == 2 * asked
    assert said.read_text() == "again\n"
    assert sum(t["again"] for t in turns) == 0
    assert "Of that: the restart" in (tmp_path / "parallel.md").read_text()


def test_what_is_no_id_is_said() -> None:
    with pytest.raises(ConfigError, match="ids of tokens"):
        token_ids("2,x")
    assert token_ids(" 2,0,") == (2, 0)


def test_a_restart_that_fails_ends_the_run_with_its_command() -> None:
    with ChatClient("http://127.0.0.1:9") as client:
        server = AskedServer(name="a", client=client, model="m", restart="exit 3")
        with pytest.raises(ConfigError, match="`exit 3` ended with 3"):
            server.restarted()
