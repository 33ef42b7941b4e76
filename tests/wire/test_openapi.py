"""The description is of what the server really takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from client_bodies import CLAUDE_CODE, CODEX, OPENCLAW, PI

from everwarm import __version__
from everwarm.chat import openapi as chat_openapi
from everwarm.server.route_policy import POLICIES
from everwarm.wire import openapi
from everwarm.wire.openapi import description

ROUTES = [(p.path, p.methods, p.needs_key, p.shape) for p in POLICIES]
DOCUMENT = description(__version__, ROUTES, openapi.CONTENTS | chat_openapi.CONTENTS)


def schema_of(path: str) -> dict[str, Any]:
    body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][
        body["schema"]["$ref"].rpartition("/")[2]
    ]
    return found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", PI),
        ("/v1/chat/completions", OPENCLAW),
        ("/v1/responses", CODEX),
        ("/v1/messages", CLAUDE_CODE),
    ],
)
def test_all_that_clients_send_is_described(path: str, body: dict[str, Any]) -> None:
    schema = schema_of(path)
    assert "additionalProperties" not in schema, "what is not described is noted"
    assert set(body) <= set(schema["properties"])


def test_every_route_and_every_reference_is_there() -> None:
    assert set(DOCUMENT["paths"]) == {p.path.replace(":path}", "}") for p in POLICIES}
    posts = [p.path for p in POLICIES if "POST" in p.methods]
    assert all("requestBody" in DOCUMENT["paths"][p]["post"] for p in posts)
    names = DOCUMENT["components"]["schemas"]
    parts = json.dumps(DOCUMENT).split('"#/components/schemas/')[1:]
    assert {p.split('"')[0] for p in parts} <= set(names)
    assert not any("everwarm__" in n for n in names)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", "stop"),
        ("/v1/completions", "prompt"),
        ("/v1/responses", "input"),
        ("/v1/messages", "system"),
    ],
)
def test_the_short_forms_of_a_field_are_told(path: str, field: str) -> None:
    told = json.dumps(schema_of(path)["properties"][field])
    assert '"type": "string"' in told and '"type": "array"' in told


def test_kinds_of_answers_queries_and_errors_are_told() -> None:
    def of(path: str, method: str = "get") -> Any:
        return DOCUMENT["paths"][path][method]

    assert set(of("/metrics")["responses"]["200"]["content"]) == {"text/plain"}
    streamed = of("/v1/messages", "post")["responses"]
    assert set(streamed["200"]["content"]) == {"application/json", "text/event-stream"}
    error = streamed["default"]["content"]["application/json"]["schema"]["$ref"]
    assert error == "#/components/schemas/anthropic_error"
    assert [p["name"] for p in of("/api/sessions")["parameters"]] == ["q", "limit", "before"]
    assert "parameters" not in of("/api/sessions", "post")
    assert of("/v1/messages", "post")["requestBody"]["required"]
    assert of("/api/sessions/{id}/send", "post")["requestBody"]["required"]
    assert not of("/api/sessions", "post")["requestBody"]["required"]
