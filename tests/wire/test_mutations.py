"""Bodies that are almost right: each is read or refused, and nothing else ever happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from client_bodies import CLAUDE_CODE, CODEX, OPENCLAW, PI
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import COMPLETION, ODD, SECRET, places, put

from everwarm.errors import RequestError
from everwarm.wire import formats
from everwarm.wire.anthropic import parse_count
from everwarm.wire.format import Format

CASES = [
    (formats.CHAT, OPENCLAW),
    (formats.CHAT, PI),
    (formats.MESSAGES, CLAUDE_CODE),
    (formats.RESPONSES, CODEX),
    (formats.COMPLETIONS, COMPLETION),
]


def check(fmt: Format, body: Any) -> None:
    raw = json.dumps(body).encode()
    for read in (lambda: fmt.parse(raw, ""), lambda: parse_count(raw)):
        try:
            read()
        except RequestError as e:
            assert SECRET not in e.message + str(e.param)
            assert e.status == 400


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
