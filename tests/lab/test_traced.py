"""`bench session --trace`: a recorded session held again, with words in place of its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.client import ChatClient
from everwarm.errors import EngineError
from everwarm.lab import report, session_report
from everwarm.lab.result import new
from everwarm.lab.shapes import make_model
from everwarm.lab.traced import TracedRun, TracePlan, words
from everwarm.lab.traces import TracedTurn
from everwarm.tokens import Mark, Tokens, tokens_of


def seq(*parts: tuple[int, int]) -> Tokens[int]:
    return tokens_of(k * 1000 + i for k, n in parts for i in range(n))


def turn(tokens: Tokens[int], reply: Tokens[int], *marks: Mark, first: bool = False) -> TracedTurn:
    return TracedTurn(
        tokens, (Mark(40, "system"), *marks, Mark(len(tokens), "prompt")), reply, first
    )


def session() -> list[TracedTurn]:
    """A task, a tool's result, the same again, another task, an edit of it, a lost reply."""
    head, task, said = seq((0, 40), (1, 30)), seq((2, 10)), seq((3, 50))
    one = head + task + said
    two = one + seq((4, 12)) + seq((5, 20))
    return [
        turn(head, task, first=True),
        turn(head + task + said, seq((4, 12)), Mark(80, "last")),
        turn(head + task + said, seq((4, 12)), Mark(80, "last")),
        turn(two, seq((6, 9)), Mark(len(one) + 12, "user")),
        turn(one + seq((4, 12), (7, 25)), seq((8, 9)), Mark(len(one) + 12, "user")),
        turn(one + seq((9, 40)), seq((10, 9)), Mark(len(one), "last")),
    ]


def held(server: FakeServer, turns: list[TracedTurn], old: Any = None) -> Any:
    plan = TracePlan(trace="t", requests=len(turns))
    with ChatClient("http://test", transport=server.transport) as client:
        result = old or new("session", "fake", plan)
        for _ in TracedRun(client, turns, plan, result).measured():
            pass
    return result


def test_prompts_share_on_the_server_what_they_share_in_the_trace() -> None:
    server = FakeServer(ours=True)
    result = held(server, session())
    assert result.complete
    kinds = [r["kind"] for r in result.rows]
    assert kinds == ["user", "user", "again", "user", "user", "rewritten"]
    sent = [[m["content"] for m in b["messages"]] for b in server.bodies]
    assert sent[0] == [words(seq((0, 40))), words(seq((1, 30)))]
    assert sent[1] == sent[2] and sent[1][:2] == sent[0]
    assert sent[3][:-1] == sent[4][:-1] and sent[3][-1] != sent[4][-1]
    assert sent[5] == [*sent[1], words(seq((9, 40)))]
    assert [r["prefilled_tokens"] for r in result.rows[2:]] == [1, 22, 26, 42]


def test_a_reply_that_goes_on_with_no_persons_message_calls_a_tool() -> None:
    server = FakeServer(ours=True)
    held(server, session())
    calls = ["<tool_call>" in b["everwarm"]["reply"] for b in server.bodies]
    assert calls == [True, False, False, False, False, False]


def test_a_run_that_is_resumed_asks_again_and_files_the_rest() -> None:
    whole = held(FakeServer(ours=True), session())
    server = FakeServer(ours=True)
    part = held(server, session()[:3])
    rows, part.complete = [*part.rows], False
    resumed = held(server, session(), part)
    assert resumed.rows[:3] == rows and resumed.complete
    counts = ("kind", "prompt_tokens", "prefilled_tokens")
    assert [[r[c] for c in counts] for r in resumed.rows] == [
        [r[c] for c in counts] for r in whole.rows
    ]


def test_another_session_is_no_continuation() -> None:
    part = held(FakeServer(ours=True), session()[:3])
    with pytest.raises(EngineError, match=r"Request 2 is not the one that was measured"):
        held(FakeServer(ours=True), [session()[0], session()[3]], part)


def test_a_report_names_the_trace(tmp_path: Path) -> None:
    result = held(FakeServer(ours=True), session())
    made = session_report.session_report(result, tmp_path)
    report.write(made, tmp_path, "session")
    assert "The session is t, a recorded one, 6 requests" in (tmp_path / "session.md").read_text()


def test_a_block_trace_on_a_real_server(smollm2: Path, tmp_path: Path) -> None:
    model = make_model("qwen3_5-4", tmp_path / "m", smollm2)

    def request(n: int, *blocks: int, typed: str = "tool_result") -> dict[str, Any]:
        return {"in": n, "out": 64, "hash_ids": [*blocks], "input_types": [typed]}

    requests = [
        request(256, 0, 1, 2, 3, typed="text"),
        request(448, 0, 1, 2, 3, 4, 5, 6),
        request(640, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        request(512, 0, 1, 2, 3, 4, 5, 6, 11, typed="text"),
    ]
    trace = tmp_path / "one.json"
    trace.write_text(json.dumps({"tool_tokens": 64, "system_tokens": 64, "requests": requests}))
    args = ["bench", "session", "--model", str(model), "--trace", str(trace), "--disk"]
    done = CliRunner().invoke(app, [*args, "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [r["kind"] for r in told["rows"]] == ["user", "tool", "tool", "rewritten"]
    assert told["summary"]["cache_ratio"] <= 1.02
    assert told["summary"]["disk_bytes_most"] > 0
    assert told["summary"]["disk_written_today_bytes_most"] > 0
    again = CliRunner().invoke(app, [*args, "--out", str(tmp_path), "--resume"])
    assert again.exit_code != 0 and "is complete" in str(again.exception)
