"""A recording read back, and its call ids mapped in each wire format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from everwarm.client import ChatClient
from everwarm.errors import ConfigError
from everwarm.lab.commands.replay_command import run
from everwarm.lab.recorded_session import RecordedCall, RecordedReply, exchanges
from everwarm.lab.replay import FailedRequest, RequestCost, apart, replay, sums, worst

RECORD = {
    "prompt_tokens": 9, "new_tokens": 2, "unseen_tokens": 3, "prefilled_tokens": 4,
    "completion_tokens": 1, "miss": None,
}  # fmt: skip
ARGS = '{ "bed" : "north" }'
CALL = {"name": "look", "arguments": ARGS}
ANSWERS: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "ours1", "function": {}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
    ],
    "/v1/messages": [
        {"type": "message_start", "message": {"id": "msg", "content": []}},
        {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "ours1"}},
    ],
    "/v1/responses": [
        {"type": "response.output_item.added", "item": {"type": "reasoning", "id": "rs"}},
        {"item": {"type": "function_call", "id": "fc", "call_id": "ours1"}},
        {"item": {"type": "function_call", "id": "fc", "call_id": "ours1"}},
    ],
}
ECHOES: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {"role": "assistant", "tool_calls": [{"id": "callab12", "function": CALL}]},
        {"role": "tool", "tool_call_id": "call_ab12", "content": "call_ab12"},
    ],
    "/v1/messages": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_ab12"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_ab12"}]},
    ],
    "/v1/responses": [
        {"type": "function_call", "id": "fc_ab12", "call_id": "call_ab12", "arguments": ARGS},
        {"type": "function_call_output", "call_id": "call_ab12", "output": "dry"},
    ],
}


class Server:
    """Answers with one call, streamed, and keeps the bodies it got."""

    def __init__(self, calls: bool = True) -> None:
        self.calls = calls
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path == "/v1/models":
            return httpx2.Response(200, json={"data": [{"id": "served"}]})
        if path == "/api/turns":
            return httpx2.Response(200, json={"turns": [RECORD]})
        self.bodies.append(json.loads(request.content))
        chunks = ANSWERS[path] if self.calls else []
        text = "".join(f"data: {json.dumps(c)}\n\n" for c in chunks)
        return httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})

    @property
    def client(self) -> ChatClient:
        return ChatClient("http://test", transport=httpx2.MockTransport(self))


def record(path: Path, wire: str) -> Path:
    reply = {"text": "Hm.", "thinking": "", "calls": [{"id": "call_ab12", **CALL}]}
    field = "input" if wire.endswith("responses") else "messages"
    fold = {"$messages_of": 1, "first": 1}
    first = {"model": "m", field: [{"role": "user", "content": "Look."}], "tools": [{"t": 1}]}
    second = {"model": "m", field: [fold, *ECHOES[wire]], "tools": {"$same": 1}}
    lines = [
        {"seq": n, "phase": f"t{n}", "path": wire, "body": body, "reply": reply}
        for n, body in enumerate((first, second), 1)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize("wire", ANSWERS)
def test_recorded_ids_become_those_the_server_gave(wire: str, tmp_path: Path) -> None:
    server = Server()
    with server.client as client:
        reads = list(replay(client, record(tmp_path / "r.jsonl", wire)))
    assert [r.prefilled for r in reads if isinstance(r, RequestCost)] == [4, 4]
    first, second = server.bodies
    assert first["model"] == "served"
    assert first["everwarm"]["reply"].startswith("Hm.<tool_call>")
    assert second["tools"] == first["tools"]
    field = "input" if wire.endswith("responses") else "messages"
    assert second[field][0] == first[field][0]
    echoed = json.dumps(second[field][1:])
    assert echoed.count("ours1") == 2
    assert ARGS in first["everwarm"]["reply"]
    if wire == "/v1/chat/completions":  # a text is not an id
        assert second[field][2]["content"] == "call_ab12"


def test_a_reply_without_its_calls_ends_the_replay(tmp_path: Path) -> None:
    with Server(calls=False).client as client:
        (failed,) = replay(client, record(tmp_path / "r.jsonl", "/v1/messages"))
    assert isinstance(failed, FailedRequest)
    assert str(failed) == (
        "request 1 (t1, /v1/messages) failed: 1 calls were dictated, 0 were answered."
    )


class Refuses(Server):
    """Refuses the requests that say a word, in the words of the path's format."""

    def __init__(self, word: str, status: int) -> None:
        super().__init__()
        self.word, self.status = word, status

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if self.word.encode() not in request.content:
            return super().__call__(request)
        error = {"message": "top_k: must be smaller.", "param": "top_k"}
        return httpx2.Response(self.status, json={"error": error})


def test_a_refused_request_is_named_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "agent.jsonl", "/v1/chat/completions")
    lines = path.read_text().splitlines()
    bad = json.loads(lines[0]) | {"seq": 7, "phase": "odd", "body": {"messages": [], "bad": 1}}
    path.write_text("\n".join([lines[0], json.dumps(bad), lines[1]]))
    with Refuses('"bad"', 422).client as client:
        assert run(client, [path], (), as_json=True) == 1
    out, err = capsys.readouterr()
    assert "agent: request 7 (odd, /v1/chat/completions) failed with 422: top_k: must" in err
    (told,) = json.loads(out)["clients"]
    assert told["sums"][0]["requests"] == 2
    assert [r["seq"] for r in told["requests"]] == [1, 2]
    assert told["failed"] == [
        {"seq": 7, "phase": "odd", "path": "/v1/chat/completions", "status": 422,
         "message": "top_k: must be smaller."}
    ]  # fmt: skip


def test_a_server_that_fails_ends_the_replay_and_the_counts_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "agent.jsonl", "/v1/chat/completions")
    with Refuses("ours1", 503).client as client:
        assert run(client, [path, path], (), as_json=True) == 1
    out, err = capsys.readouterr()
    assert err.count("request 2 (t2, /v1/chat/completions) failed: top_k: must") == 2
    assert [len(c["requests"]) for c in json.loads(out)["clients"]] == [1, 1]


@pytest.mark.parametrize("answer", [b"<html>", b""])
def test_an_answer_that_is_no_json_is_a_failure_of_its_request(
    tmp_path: Path, answer: bytes
) -> None:
    class Babbles(Server):
        def __call__(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/v1/messages":
                return httpx2.Response(200, content=answer)
            return super().__call__(request)

    with Babbles().client as client:
        (failed,) = replay(client, record(tmp_path / "r.jsonl", "/v1/messages"))
    assert isinstance(failed, FailedRequest) and "did not answer with JSON" in failed.message


def test_without_a_failure_the_exit_code_is_0(tmp_path: Path) -> None:
    path = record(tmp_path / "agent.jsonl", "/v1/messages")
    with Server().client as client:
        assert run(client, [path], (), as_json=False) == 0


def test_the_dialect_writes_thoughts_text_and_calls_as_they_were() -> None:
    said = RecordedReply(
        "Look:\n", "Hm.\n", (RecordedCall("a", "look", ARGS), RecordedCall("b", "wait", ""))
    )
    assert said.written() == (
        "<think>\nHm.\n</think>\n\nLook:\n"
        f'<tool_call>\n{{"name": "look", "arguments": {ARGS}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "wait", "arguments": {}}\n</tool_call>'
    )


@pytest.mark.parametrize("text", ["no json", '{"seq": 1}', '{"body": {"a": {"$same": 7}}}'])
def test_what_is_no_recording_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"r\.jsonl"):
        list(exchanges(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(exchanges(tmp_path / "none.jsonl"))


def read(seq: int, new: int, prefilled: int, phase: str = "t1") -> RequestCost:
    return RequestCost(seq=seq, phase=phase, prompt=100, new=new, unseen=new, prefilled=prefilled,
                completion=1, miss=None)  # fmt: skip


def test_what_one_request_saves_makes_up_for_nothing_in_another() -> None:
    reads = [read(1, 50, 10), read(2, 10, 40), read(3, 0, 1), read(4, 9, 9, "t2")]
    whole = sums("all", reads)
    assert whole.prefilled == 60 and whole.new == 69
    assert whole.again == 30
    assert [r.seq for r in worst(reads)] == [2]
    assert [s.requests for s in apart(reads, {"t2"})] == [4, 3]
