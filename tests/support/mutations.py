"""Bodies that are almost right."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

COMPLETION: dict[str, Any] = {
    "prompt": [1, 2],
    "max_tokens": 1,
    "logit_bias": {"5": 1},
    "stop": "a",
}
PROMPTS: dict[str, Any] = {"prompt": ["a", "b c"], "n": 2, "max_tokens": 1, "seed": 3, "best_of": 2}
REFERRING: dict[str, Any] = {
    "input": [
        {"role": "user", "content": "hi"},
        {"type": "item_reference", "id": "msg_0000_0"},
        {"id": "rs_0000_1"},
    ],
    "previous_response_id": "resp_0001",
    "include": ["reasoning.encrypted_content"],
}
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
