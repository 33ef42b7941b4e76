"""`bench compare`: the same work on several servers."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import zoo
from fake_server import FakeServer
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.cli.child import running_server
from everwarm.client import ChatClient
from everwarm.errors import ConfigError
from everwarm.lab import report
from everwarm.lab.commands.measure import named
from everwarm.lab.compare import ComparePlan, CompareRun, compare_report, new_result, summary
from everwarm.lab.result import Result


@pytest.fixture
def played() -> tuple[Result, list[FakeServer]]:
    servers = [FakeServer(), FakeServer()]
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(ChatClient("http://test", transport=server.transport))
            for name, server in zip(("a", "b"), servers, strict=True)
        }
        models = {"a": "fake", "b": "other"}
        result = new_result(models, ComparePlan(tokens=1000, rounds=2))
        for _ in CompareRun(clients, models, ComparePlan(tokens=1000, rounds=2), result).measured():
            pass
    return result, servers


def test_servers_get_the_same_messages_in_turns(
    played: tuple[Result, list[FakeServer]],
) -> None:
    result, (a, b) = played
    assert [x["messages"] for x in a.bodies] == [x["messages"] for x in b.bodies]
    assert {x["model"] for x in a.bodies} == {"fake"} and {x["model"] for x in b.bodies} == {
        "other"
    }
    assert [r["server"] for r in result.rows] == ["a", "b"] * (len(result.rows) // 2)
    assert result.complete and all(r["same_text"] for r in result.rows)


def test_each_scenario_reads_what_it_should_on_a_server_that_keeps_everything(
    played: tuple[Result, list[FakeServer]],
) -> None:
    found = {s["kind"]: s["servers"]["a"] for s in summary(played[0].rows)}
    for kind in ("next turn", "regenerate", "edit the last message", "two agents in turns"):
        assert found[kind]["prefilled_tokens"] < 30, kind
    assert found["same system prompt"]["prefilled_tokens"] < 40
    assert found["cold"]["prefilled_tokens"] > 0.95 * found["cold"]["prompt_tokens"]
    assert found["edit three turns back"]["prompt_tokens"] < found["next turn"]["prompt_tokens"]


def test_the_report_names_servers_and_scenarios(
    played: tuple[Result, list[FakeServer]], tmp_path: Path
) -> None:
    report.write(compare_report(played[0], tmp_path), tmp_path, "compare")
    text = (tmp_path / "compare.md").read_text()
    for words in ("a (fake), b (other)", "| next turn |", "| ask again after leaving |"):
        assert words in text


def test_what_is_asked_again_is_compared_with_the_answer_before(
    played: tuple[Result, list[FakeServer]],
) -> None:
    found = {s["kind"]: s["servers"]["a"] for s in summary(played[0].rows)}
    again = found["regenerate"]  # this server never says the same twice
    assert (again["asked_before"], again["as_before"]) == (2, 0)
    assert found["next turn"]["asked_before"] == 0


def test_a_restarted_server_is_asked_the_last_prompt_again(
    played: tuple[Result, list[FakeServer]],
) -> None:
    result, (a, _) = played
    server = FakeServer()
    with ChatClient("http://test", transport=server.transport) as client:
        run = CompareRun({"a": client}, {"a": "fake"}, ComparePlan(tokens=1000, rounds=2), result)
        (row,) = run.restarted()
    assert server.bodies[0]["messages"] == a.bodies[-1]["messages"]
    assert row["kind"] == "the same after a restart" and row["as_before"] is False
    assert row["prefilled_tokens"] == row["prompt_tokens"]


def test_a_run_that_did_not_end_has_nothing_to_ask_after_a_restart() -> None:
    plan = ComparePlan()
    with ChatClient("http://test", transport=FakeServer().transport) as client:
        run = CompareRun({"a": client}, {"a": "fake"}, plan, new_result({"a": "fake"}, plan))
        with pytest.raises(ConfigError, match="did not come to its end for a"):
            next(run.restarted())


def test_what_a_server_refuses_is_in_the_report_and_the_others_go_on(tmp_path: Path) -> None:
    servers = {"a": FakeServer(), "b": FakeServer(no_tools=True)}
    plan = ComparePlan(tokens=400, rounds=1)
    with ExitStack() as stack:
        clients = {
            n: stack.enter_context(ChatClient("http://test", transport=s.transport))
            for n, s in servers.items()
        }
        result = new_result({"a": "fake", "b": "fake"}, plan)
        for _ in CompareRun(clients, {"a": "fake", "b": "fake"}, plan, result).measured():
            pass
    found = {s["kind"]: s["servers"] for s in summary(result.rows)}
    assert set(found["tool loop"]) == {"a"} and set(found["next turn"]) == {"a", "b"}
    report.write(compare_report(result, tmp_path), tmp_path, "compare")
    assert "| b | tool loop | no tools here |" in (tmp_path / "compare.md").read_text()


@pytest.mark.parametrize(
    ("servers", "why"),
    [(["a"], "A server is NAME=URL"), (["a=ftp://x"], "A server is NAME=URL"),
     (["a=http://x", "a=http://y"], "two servers called a")],
)  # fmt: skip
def test_what_is_no_server_is_named(servers: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        named(servers)


def test_two_real_servers_are_compared(smollm2: Path, tmp_path: Path) -> None:
    model = zoo.save("llama", tmp_path / "tiny", smollm2)
    with (
        running_server([str(model)]) as warm,
        running_server([str(model), "--no-cache"]) as cold,
    ):
        args = ["bench", "compare", f"warm={warm}", f"cold={cold}", "--tokens", "400"]
        args += ["--rounds", "1", "--out", str(tmp_path), "--json"]
        done = CliRunner().invoke(app, args, catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    found = {s["kind"]: s["servers"] for s in told["summary"]}
    for kind in ("next turn", "regenerate", "two agents in turns"):
        sides = found[kind]
        assert sides["cold"]["prefilled_tokens"] == sides["cold"]["prompt_tokens"]
        assert sides["warm"]["prefilled_tokens"] < 60
