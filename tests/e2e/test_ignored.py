"""What is accepted without effect is told: in the header, in the record; or refused, if strict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Server, save_talker, serving

HI = {"role": "user", "content": "hi"}
SHORT = {"everwarm": {"reply": "Yes."}}
HEADER = "x-everwarm-ignored"
ASKED: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/chat/completions", {"messages": [{**HI, "weight": 1}], "user": "u"}, "messages[].weight"),
    ("/v1/completions", {"prompt": "hi", "max_tokens": 4, "user": "u"}, "user"),
    ("/v1/responses", {"input": [{**HI, "weight": 1}], "user": "u"}, "input[].weight"),
    ("/v1/messages", {"messages": [HI], "max_tokens": 4, "speed": "fast"}, "speed"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return save_talker(tmp_path_factory.mktemp("models"), smollm2)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving(model, "--forced-replies") as running:
        yield running


@pytest.fixture(scope="module")
def strict(model: Path) -> Iterator[Server]:
    with serving(model, "--forced-replies", "--strict") as running:
        yield running


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body", "name"), ASKED)
def test_header_and_record_list_what_was_ignored(
    server: Server, path: str, body: dict[str, Any], name: str, stream: bool
) -> None:
    status, _, headers = server.call("POST", path, {**body, **SHORT, "stream": stream})
    assert status == 200
    assert name in headers[HEADER].split(", ")
    assert server.turn()["ignored"] == headers[HEADER].split(", ")


def test_a_plain_request_has_no_such_header(server: Server) -> None:
    status, _, headers = server.call("POST", "/v1/chat/completions", {"messages": [HI], **SHORT})
    assert status == 200 and HEADER not in headers
    assert server.turn()["ignored"] == []


def test_counting_tells_too(server: Server) -> None:
    body = {"messages": [HI], "safeguards": []}
    status, _, headers = server.call("POST", "/v1/messages/count_tokens", body)
    assert (status, headers[HEADER]) == (200, "safeguards")


@pytest.mark.parametrize(("path", "body", "name"), ASKED)
def test_a_strict_server_refuses_it_by_name(
    strict: Server, path: str, body: dict[str, Any], name: str
) -> None:
    status, answer, _ = strict.call("POST", path, {**body, **SHORT})
    assert status == 400
    assert name in answer["error"]["message"] or "user" in answer["error"]["message"]
    status, answer, _ = strict.call("POST", "/v1/chat/completions", {"messages": [HI], **SHORT})
    assert status == 200


def test_a_strict_server_refuses_to_count_it(strict: Server) -> None:
    body = {"messages": [HI], "safeguards": []}
    status, answer, _ = strict.call("POST", "/v1/messages/count_tokens", body)
    assert status == 400 and answer["error"]["message"].startswith("safeguards ")
