"""What real agents send, feature by feature: each of it must be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from client_bodies import (
    ARGUMENTS,
    CLAUDE_CODE,
    CODEX,
    CODEX_COMPACTION,
    OPENCLAW,
    OPENCODE,
    OPENCODE_TITLE,
    PI,
    PI_COMPACTION,
)

from everwarm.messages import call_key
from everwarm.request import Request
from everwarm.wire import formats
from everwarm.wire.anthropic import parse_count
from everwarm.wire.format import Format, ParsedRequest


def parsed(fmt: Format, body: dict[str, Any]) -> ParsedRequest:
    return fmt.parse(json.dumps(body).encode(), "")


def shape(request: Request) -> str:
    """The roles, by their first letters."""
    return "".join(m.role[0] for m in request.messages)


@pytest.mark.parametrize(
    ("fmt", "body", "roles", "n_tools"),
    [
        (formats.CHAT, OPENCODE, "suattau", 1),
        (formats.CHAT, OPENCODE_TITLE, "su", 0),
        (formats.CHAT, OPENCLAW, "suattauu", 1),
        (formats.CHAT, PI, "suattau", 1),
        (formats.CHAT, PI_COMPACTION, "suattau", 0),
        (formats.MESSAGES, CLAUDE_CODE, "susattuatsau", 1),
        (formats.RESPONSES, CODEX, "suatu", 3),
        (formats.RESPONSES, CODEX_COMPACTION, "suatu", 0),
    ],
)
def test_a_client_s_request_is_read(
    fmt: Format, body: dict[str, Any], roles: str, n_tools: int
) -> None:
    asked = parsed(fmt, body)
    assert asked.stream
    assert shape(asked.request) == roles
    assert len(asked.request.tools) == n_tools


@pytest.mark.parametrize(("fmt", "body"), [(formats.CHAT, PI), (formats.RESPONSES, CODEX)])
def test_arguments_keep_their_spelling(fmt: Format, body: dict[str, Any]) -> None:
    calls = [c for m in parsed(fmt, body).request.messages for c in m.tool_calls]
    assert all(c.arguments == ARGUMENTS for c in calls)


def test_every_result_names_a_call_that_was_made() -> None:
    bodies = [(formats.CHAT, OPENCODE), (formats.MESSAGES, CLAUDE_CODE), (formats.RESPONSES, CODEX)]
    for fmt, body in bodies:
        messages = parsed(fmt, body).request.messages
        made = {call_key(c.id) for m in messages for c in m.tool_calls}
        answered = {call_key(m.tool_call_id) for m in messages if m.tool_call_id}
        assert answered == made


def test_claude_code_counts_a_file_without_a_limit() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "00000 a"}], "tools": []}
    assert shape(parse_count(json.dumps(body).encode())) == "u"
