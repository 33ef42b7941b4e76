"""Bodies that are almost right: each is read or refused, and nothing else ever happens."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from client_bodies import CLAUDE_CODE, CODEX, OPENCLAW, PI
from hypothesis import given, settings
from hypothesis import strategies as st

from everwarm.errors import RequestError
from everwarm.wire import formats
from everwarm.wire.anthropic import parse_count
from everwarm.wire.format import Format

COMPLETION: dict[str, Any] = {
    "prompt": [1, 2],
    "max_tokens": 1,
    "logit_bias": {"5": 1},
    "stop": "a",
}
CASES = [
    (formats.CHAT, OPENCLAW),
    (formats.CHAT, PI),
    (formats.MESSAGES, CLAUDE_CODE),
    (formats.RESPONSES, CODEX),
    (formats.COMPLETIONS, COMPLETION),
]
SECRET = "s3cr3t input"
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, 2**63, 2**70, "", "text", SECRET, "\ud800", "\x00", [], {},
    [None], [[]], [{}], {"type": "text"}, {"type": SECRET}, {SECRET: 1}, [SECRET], {"role": "user"},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))
        else:
            yield (*path, key)


def put(body: Any, path: tuple[Any, ...], value: Any, *, how: str) -> Any:
    body = copy.deepcopy(body)
    if not path:
        return value
    at = body
    for key in path[:-1]:
        at = at[key]
    if how == "remove":
        del at[path[-1]]
    elif how == "add" and isinstance(at[path[-1]], dict):
        at[path[-1]][SECRET] = value
    else:
        at[path[-1]] = value
    return body


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
