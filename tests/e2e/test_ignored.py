"""What is accepted without effect is told: in the header, in the record; or refused, if strict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_templates import TURNS_ALONE
from serving import Server, save_talker, serving, sse

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


@pytest.mark.parametrize("stream", [False, True])
def test_a_name_that_claude_code_has_built_in_means_the_served_model(
    server: Server, strict: Server, stream: bool
) -> None:
    body = {"messages": [HI], "max_tokens": 4, "stream": stream, **SHORT}
    named = {**body, "model": "claude-opus-5-5"}
    status, raw, headers = server.call("POST", "/v1/messages", named)
    assert status == 200 and headers[HEADER] == "model"
    said = raw if not stream else sse(raw)[0][1]["message"]
    assert said["model"] == "talker"
    assert server.turn()["ignored"] == ["model"]
    assert strict.call("POST", "/v1/messages", named)[0] == 400
    for other in ("claude", "gpt-5", "somebody/claude-opus-5-5"):
        status, answer, _ = server.call("POST", "/v1/messages", {**body, "model": other})
        assert status == 404 and "talker" in answer["error"]["message"]


def test_a_model_that_is_served_under_such_a_name_is_asked_for_by_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERWARM_MODEL_ID", "claude-local")
    with serving(model, "--forced-replies") as server:
        body = {"messages": [HI], "max_tokens": 4, **SHORT}
        for name, told in (("claude-local", None), ("claude-opus-5-5", "model")):
            status, _, headers = server.call("POST", "/v1/messages", {**body, "model": name})
            assert status == 200 and headers.get(HEADER) == told


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


PARAMETERS = {"type": "object", "properties": {"at": {"type": "string"}}}
LOOK = {"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}
FLAT_LOOK = {"type": "function", "name": "look", "parameters": PARAMETERS}
WITH_TOOLS: list[tuple[str, dict[str, Any], Any]] = [
    (
        "/v1/chat/completions",
        {"messages": [HI], "tools": [LOOK]},
        {"type": "function", "function": {"name": "look"}},
    ),
    (
        "/v1/responses",
        {"input": "hi", "tools": [FLAT_LOOK]},
        {"type": "function", "name": "look"},
    ),
    (
        "/v1/messages",
        {
            "messages": [HI],
            "max_tokens": 4,
            "tools": [{"name": "look", "input_schema": PARAMETERS}],
        },
        {"type": "tool", "name": "look"},
    ),
]


@pytest.fixture(scope="module")
def mute(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    """A model that has no notation for calls, and whose template refuses results."""
    path = tmp_path_factory.mktemp("mute")
    with serving(save_talker(path, smollm2, template=TURNS_ALONE), "--forced-replies") as running:
        yield running


@pytest.mark.parametrize(("path", "body", "choice"), WITH_TOOLS)
def test_a_model_without_a_notation_takes_tools_and_says_that_they_have_no_effect(
    mute: Server, path: str, body: dict[str, Any], choice: object
) -> None:
    said = mute.call("GET", "/v1/models")[1]["data"][0]
    assert said["capabilities"]["tools"] is False
    assert "no notation for tool calls" in said["everwarm"]["limits"][0]
    status, _, headers = mute.call("POST", path, {**body, **SHORT})
    assert (status, headers[HEADER]) == (200, "tools")
    assert mute.turn()["ignored"] == ["tools"]


@pytest.mark.parametrize("any_call", [True, False])
@pytest.mark.parametrize(("path", "body", "choice"), WITH_TOOLS)
def test_a_call_that_is_asked_for_is_refused_without_a_notation(
    mute: Server, path: str, body: dict[str, Any], choice: object, any_call: bool
) -> None:
    required: Any = {"type": "any"} if path == "/v1/messages" else "required"
    asked = {**body, **SHORT, "tool_choice": required if any_call else choice}
    status, answer, _ = mute.call("POST", path, asked)
    assert status == 400 and "tool_choice" in str(answer["error"])


def test_an_agent_goes_on_as_a_chat_where_another_model_called_tools(mute: Server) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    history = [
        {"role": "system", "content": "Be brief."},
        HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
    ]
    body = {"messages": history, "tools": [LOOK], **SHORT}
    status, answer, _ = mute.call("POST", "/v1/chat/completions", body)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "Yes."
