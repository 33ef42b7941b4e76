"""A body is bounded before anything is built of it, and its first fault ends the reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from everwarm.chat import openapi as chat_openapi
from everwarm.chat import session_files, session_json
from everwarm.errors import RequestError
from everwarm.wire import anthropic, openai_chat, openai_completions, openai_responses, openapi
from everwarm.wire.structure import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_VALUES,
    SLICE,
    check_structure,
    outside_strings,
)

DESCRIBED = ("metadata", "json_schema_input_schema")
BODIES = (openapi.CONTENTS | chat_openapi.CONTENTS).bodies.values()
MODELS = sorted({*BODIES}, key=lambda m: m.__qualname__)
PARSERS = {
    "messages of chat": (openai_chat.parse, b'{"messages":[%s]}'),
    "messages": (anthropic.parse, b'{"max_tokens":1,"messages":[%s]}'),
    "input": (openai_responses.parse, b'{"input":[%s]}'),
    "prompt": (openai_completions.parse, b'{"prompt":[%s]}'),
    "import": (
        lambda body: session_json.read(body, session_files.ImportBody),
        b'{"everwarm":1,"branches":[{"name":"main"}],"messages":[%s]}',
    ),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\,:[]{} é\n'),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('k"\\,{'), inner),
    max_leaves=30,
)


def values_in(value: Any) -> int:
    """Keys and values, counted in what a parser made."""
    if isinstance(value, dict):
        return 1 + sum(1 + values_in(v) for v in value.values())
    return 1 + sum(map(values_in, value)) if isinstance(value, list) else 1


def without_strings(text: str) -> str:
    """By a decoder that reads one string after the other: what the slices have to add up to."""
    out, at = [], 0
    while (start := text.find('"', at)) >= 0:
        out.append(text[at:start])
        _, at = json.decoder.scanstring(text, start + 1)  # type: ignore[attr-defined]
    return "".join([*out, text[at:]])


@given(JSON, st.integers(1, 9), st.booleans())
def test_slices_hold_what_stands_outside_of_strings(value: Any, size: int, ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii)
    assert b"".join(outside_strings(text.encode(), size)).decode() == without_strings(text)


@given(JSON)
def test_no_value_is_missed(value: Any) -> None:
    outside = b"".join(outside_strings(json.dumps(value).encode()))
    assert 1 + sum(map(outside.count, (b",", b":", b"{", b"["))) >= values_in(value)


@pytest.mark.parametrize(
    "text", ["a" * 9_000_000, '",:[{' * 900_000, "\\" * 900_000, "\n" * 900_000]
)
def test_a_long_text_is_one_value(text: str) -> None:
    body = json.dumps({"prompt": text}).encode()
    check_structure(body)
    assert openai_completions.parse(body).request.raw == text


REFUSED = {
    "too many values": b"[" + b"0," * MAX_VALUES + b"0]",
    "too many keys": b"{" + b'"k":0,' * (MAX_VALUES // 2) + b'"k":0}',
    "too many objects": b"[" + b"{}," * MAX_CONTAINERS + b"{}]",
    "too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "too deep in many slices": (b" " * SLICE).join([b"["] * (MAX_DEPTH + 1)),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_too_much_structure_is_refused_before_it_is_built(body: bytes) -> None:
    with pytest.raises(RequestError, match=r"than .* (values|lists|levels)") as refused:
        check_structure(body)
    assert refused.value.param is None


def test_what_is_within_the_limits_is_read() -> None:
    check_structure(b"[" + b"0," * (MAX_VALUES - 2) + b"0]")
    check_structure(b"[" + b"[]," * (MAX_CONTAINERS - 2) + b"[]]")
    check_structure(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    check_structure(b"[" + b"[]," * 1000 + b'"' + b"[" * 9 * MAX_DEPTH + b'"]')


@pytest.mark.parametrize("item", [b"0", b"{}", b"[]", b'"x"', b'{"role":"user","content":"x"}'])
@pytest.mark.parametrize("name", PARSERS)
def test_six_hundred_thousand_elements_are_refused_at_every_path(name: str, item: bytes) -> None:
    parse, form = PARSERS[name]
    with pytest.raises(RequestError, match="The body has more than"):
        parse(form % b",".join([item] * 600_000))


@pytest.mark.parametrize("item", [b"-1", b"{}", b'{"role":"user"}', b'"x"'])
@pytest.mark.parametrize("name", PARSERS)
def test_many_faults_are_one(name: str, item: bytes) -> None:
    parse, form = PARSERS[name]
    with pytest.raises(RequestError) as refused:
        parse(form % b",".join([item] * 30_000))
    fault = refused.value.__context__
    assert isinstance(fault, ValidationError)
    assert fault.error_count() < 10, "those of one object, for a text or for a list"


def test_a_hundred_thousand_unknown_fields_of_our_own_objects_are_one_fault() -> None:
    unknown = ",".join(f'"k{n}":1' for n in range(100_000))
    body = f'{{"messages":[{{"role":"user","content":"x"}}],"everwarm":{{{unknown}}}}}'
    with pytest.raises(RequestError, match="is not supported") as refused:
        openai_chat.parse(body.encode())
    fault = refused.value.__context__
    assert isinstance(fault, ValidationError)
    assert fault.error_count() == 1
    assert refused.value.param == "everwarm.k0"


def schemas_in(node: Any) -> Iterator[dict[str, Any]]:
    """All that is read by; what is only described stands beside it."""
    if isinstance(node, dict):
        yield node
        yield from (s for key, v in node.items() if key not in DESCRIBED for s in schemas_in(v))
    elif isinstance(node, list | tuple):
        yield from (s for v in node for s in schemas_in(v))


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__qualname__)
def test_every_list_of_a_body_ends_its_reading_at_the_first_fault(model: type[BaseModel]) -> None:
    for schema in schemas_in(model.__pydantic_core_schema__):
        if schema.get("type") in ("list", "set", "tuple"):
            assert schema.get("fail_fast"), schema
        if schema.get("type") == "dict" and schema["values_schema"]["type"] != "any":
            assert schema.get("fail_fast"), schema
