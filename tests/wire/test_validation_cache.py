"""A message that came before is read once, and never taken for another one."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from everwarm.errors import RequestError
from everwarm.wire import anthropic, openai_chat
from everwarm.wire.format import ParsedRequest
from everwarm.wire.validation_cache import ValidationCache

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def chat(messages: list[dict[str, Any]]) -> ParsedRequest:
    return openai_chat.parse(json.dumps({"messages": messages}).encode())


def messages(given: list[dict[str, Any]], **more: Any) -> ParsedRequest:
    return anthropic.parse(json.dumps({"max_tokens": 1, "messages": given, **more}).encode())


def test_the_messages_of_a_later_turn_are_those_of_the_earlier_one() -> None:
    said = [
        {"role": "user", "content": "once"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "seen"},
    ]
    first, second = chat(said[:2]).request.messages, chat(said).request.messages
    assert all(a is b for a, b in zip(first, second, strict=False))
    again = chat(said).request.messages
    assert all(a is b for a, b in zip(second, again, strict=True))


def test_a_message_that_is_only_equal_in_python_is_read_by_itself() -> None:
    failed = {"type": "tool_result", "tool_use_id": "c", "is_error": True}
    messages([{"role": "user", "content": [failed]}])
    for flag in (1, 1.0):
        with pytest.raises(RequestError, match=r"messages\.1\.content\..*is_error"):
            again = [{"role": "user", "content": [failed | {"is_error": f}]} for f in (True, flag)]
            messages(again)
    for value in (1, 1.0, True):
        use = {"type": "tool_use", "id": "c", "name": "n", "input": {"v": value}}
        done = {"type": "tool_result", "tool_use_id": "c"}
        said = [("user", "do"), ("assistant", [use]), ("user", [done])]
        made = messages([{"role": r, "content": c} for r, c in said]).request.messages[1:]
        assert made[0].tool_calls[0].arguments == orjson.dumps({"v": value}).decode()


def test_a_fault_is_told_by_its_own_place_each_time() -> None:
    for n in (1, 3):
        said = [{"role": "user", "content": str(i)} for i in range(n)]
        with pytest.raises(RequestError) as refused:
            chat([*said, {"role": "user", "content": 7}])
        assert refused.value.param == f"messages.{n}.content"


def test_a_message_that_shows_a_tool_is_read_with_the_tools_of_its_own_request() -> None:
    shown = {"type": "tool_reference", "tool_name": "find"}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [shown]}
    texts = []
    for about in ("finds things", "finds more"):
        tool = {"name": "find", "description": about, "input_schema": {}, "defer_loading": True}
        asked = messages([{"role": "user", "content": [result]}], tools=[tool])
        texts.append(asked.request.messages[0].text)
    assert "finds things" in texts[0] and "finds more" in texts[1]


def test_what_is_remembered_is_bounded_and_the_longest_unseen_goes_first() -> None:
    read: list[str] = []

    def validate(value: str) -> list[str]:
        read.append(value)
        return [value]

    once = ValidationCache(limit=20, own=0)  # two texts of eight characters and two quotes
    for value in ("a" * 8, "b" * 8, "a" * 8, "c" * 8, "a" * 8, "b" * 8):
        once(value, validate)
    assert [r[0] for r in read] == ["a", "b", "c", "b"]


def test_short_messages_are_bounded_in_number() -> None:
    once = ValidationCache(limit=10_000, own=1000)
    for n in range(1000):
        once(n, lambda value: [value])
    assert len(once) == 9


def test_a_message_beyond_the_limit_takes_nobody_s_place() -> None:
    once = ValidationCache(limit=100, own=0)
    for value in ("a", "b" * 200):
        once(value, lambda value: [value])
    assert len(once) == 1
