"""Bodies that are almost right: each is read or refused, and nothing else ever happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from client_bodies import CLAUDE_CODE, CODEX, OPENCLAW, PI
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import COMPLETION, ODD, PROMPTS, REFERRING, SECRET, places, put

from everwarm.errors import RequestError
from everwarm.server.response_store import ResponseStore
from everwarm.wire import formats
from everwarm.wire.anthropic import parse_count
from everwarm.wire.format import Format


def stored() -> ResponseStore:
    """What `REFERRING` refers to."""
    store = ResponseStore()
    said = {"type": "message", "id": "msg_0000_0", "role": "assistant"}
    text = {"type": "output_text", "text": "So.", "annotations": [], "logprobs": []}
    thought = {"type": "reasoning", "id": "rs_0000_1", "summary": []}
    part = {"type": "reasoning_text", "text": "Hm."}
    output = [said | {"content": [text]}, thought | {"content": [part]}]
    store.put("", {"id": "resp_0000", "output": output}, [])
    store.put("", {"id": "resp_0001", "output": [said | {"id": "msg_1", "content": [text]}]}, [])
    return store


STORED = formats.responses(stored())
CASES = [
    (formats.CHAT, OPENCLAW),
    (formats.CHAT, PI),
    (formats.MESSAGES, CLAUDE_CODE),
    (formats.RESPONSES, CODEX),
    (formats.COMPLETIONS, COMPLETION),
    (formats.COMPLETIONS, PROMPTS),
    (STORED, REFERRING),
]


def check(fmt: Format, body: Any) -> None:
    raw = json.dumps(body).encode()
    for read in (lambda: fmt.parse(raw, ""), lambda: parse_count(raw)):
        try:
            read()
        except RequestError as e:
            assert SECRET not in e.message + str(e.param)
            assert e.status == 400 or (e.status == 404 and str(e.param).startswith("input."))


def test_what_is_referred_to_is_there() -> None:
    asked = STORED.parse(json.dumps(REFERRING).encode(), "")
    assert [m.text for m in asked.request.messages] == ["So.", "hi", "So."]


@pytest.mark.parametrize(("fmt", "body"), CASES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_mutated_body_is_read_or_refused(fmt: Format, body: Any, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        if not isinstance(body, dict):
            break
        path = data.draw(st.sampled_from(list(places(body))))
        how = data.draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        body = put(body, path, data.draw(st.sampled_from(ODD)), how=how)
    check(fmt, body)
