"""The HTTP side over a real socket, with a tiny model behind it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from forked import Forked


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[int]:
    path = tmp_path_factory.mktemp("models") / "tiny"
    zoo.save("llama", path, smollm2)
    command = [sys.executable, "-m", "everwarm", "serve", str(path), "--port", "0"]
    process = Forked(
        [*command, "--prefill-step", "64", "--no-remember", "--no-disk"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield int(process.stdout.readline().split(":")[-1].split("/")[0])
    process.terminate()
    code = process.wait(30)
    process.stdout.close()
    assert code == 0


def call(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text.lstrip().startswith(b"{") else text


def chat(port: int, **fields: Any) -> tuple[int, Any]:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2} | fields
    return call(port, "POST", "/v1/chat/completions", json.dumps(body).encode())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"top_k": 50_000}, "top_k"),
        ({"stop": [5]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -3}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 9}, "n"),
        ({"everwarm": {"reply": "Hi"}}, "everwarm.reply"),
        ({"logit_bias": {"60000": 1}}, "logit_bias"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_refusal_names_the_parameter(port: int, fields: dict[str, Any], param: str) -> None:
    status, body = chat(port, **fields)
    assert status == 400
    assert body["error"]["param"].startswith(param)
    assert chat(port)[0] == 200


@pytest.mark.parametrize("body", [b"{", b'{"temperature": NaN}', b"[]", b"\xff\xfe", b""])
def test_malformed_body_is_refused(port: int, body: bytes) -> None:
    status, answer = call(port, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:9"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
    ],
)
def test_foreign_host_and_origin_are_refused(
    port: int, headers: dict[str, str], status: int
) -> None:
    assert call(port, "GET", "/v1/models", **headers)[0] == status


def test_streamed_and_unstreamed_are_the_same(port: int) -> None:
    _, whole = chat(port, temperature=0, max_tokens=6)
    _, stream = chat(port, temperature=0, max_tokens=6, stream=True)
    events = [line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    deltas = [json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events]
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_in_prefill_finds_its_work(port: int, stream: bool) -> None:
    text = f"{stream} " + "word " * 7000
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1, "stream": stream}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    wait_for(port, lambda running: any(r["done"] > 0 for r in running))
    connection.sock.close()
    wait_for(port, lambda running: not running)
    _, turns = call(port, "GET", "/api/turns?limit=1")
    assert turns["turns"][0]["finish"] == "cancelled"
    status, answer = chat(port, **(body | {"stream": False}))
    assert status == 200
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= 64


def wait_for(port: int, holds: Any) -> None:
    for _ in range(3000):
        if holds(call(port, "GET", "/api/ps")[1]["running"]):
            return
        time.sleep(0.01)
    raise AssertionError("the server never got there")


def test_unknown_model_is_404(port: int) -> None:
    status, body = chat(port, model="somebody/else")
    assert status == 404
    assert body["error"]["code"] == "model_not_found"


def test_a_strict_tool_is_accepted_where_the_model_has_no_calls(port: int) -> None:
    function = {"name": "f", "strict": True, "parameters": {"type": "object"}}
    status, answer = chat(port, tools=[{"type": "function", "function": function}])
    assert (status, "tool_calls" in answer["choices"][0]["message"]) == (200, False)
