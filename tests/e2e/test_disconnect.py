"""A client that leaves while its prompt is read finds its work done, in every format."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from serving import Server, serving

LONG = "word " * 3000
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1},
    "/v1/completions": {"prompt": LONG, "max_tokens": 1},
    "/v1/responses": {"input": LONG, "max_output_tokens": 1},
    "/v1/messages": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("models") / "tiny"
    with serving(zoo.save("llama", path, smollm2), "--prefill-step", "32") as running:
        yield running


def wait_for(server: Server, holds: Any) -> None:
    for _ in range(3000):
        if holds(server.call("GET", "/api/ps")[1]["running"]):
            return
        time.sleep(0.01)
    raise AssertionError("the server never got there")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ASKS)
def test_the_work_is_kept(server: Server, path: str, stream: bool) -> None:
    key = "prompt" if "prompt" in ASKS[path] else "input" if "input" in ASKS[path] else "messages"
    said = f"{path} {stream} {LONG}"
    given = [{"role": "user", "content": said}] if key == "messages" else said
    body = ASKS[path] | {key: given}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", path, json.dumps(body | {"stream": stream}))
    wait_for(server, lambda running: any(r["done"] >= 256 for r in running))
    connection.close()
    wait_for(server, lambda running: not running)
    left = server.turn()
    assert left["finish"] == "cancelled"
    assert 256 <= left["prefilled_tokens"] + left["cached_tokens"] < left["prompt_tokens"]
    assert left["unseen_tokens"] <= left["prefilled_tokens"]
    status, _, _ = server.call("POST", path, body)
    assert status == 200
    record = server.turn()
    assert record["cached_tokens"] >= 256
    assert record["cached_tokens"] >= left["cached_tokens"] + left["prefilled_tokens"]
    assert record["prefilled_tokens"] == record["prompt_tokens"] - record["cached_tokens"]
