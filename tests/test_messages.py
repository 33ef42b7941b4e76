"""The same content in other spellings is the same message."""

from __future__ import annotations

import pytest

from everwarm.messages import Message, Reasoning, Text, ToolCall, canonical, content_id, tidied


def says(role: str, *texts: str) -> Message:
    return Message(role, tuple(map(Text, texts)))  # type: ignore[arg-type]


def calls(arguments: str, call_id: str = "a") -> Message:
    return Message("assistant", (ToolCall(call_id, "look", arguments),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (says("user", "a b"), says("user", "a", " b")),
        (says("user", "a\n"), says("user", " a")),
        (says("assistant"), says("assistant", "")),
        (says("assistant", "a"), Message("assistant", (Reasoning("hm"), Text("a")))),
        (calls('{"a": 1, "b": "é"}'), calls('{"b":"\\u00e9","a":1}', "b")),
        (calls(""), calls("{}")),
        (says("user", "a"), says("user", "a", "\n<total_tokens>9 tokens left</total_tokens>")),
    ],
)
def test_spellings_of_one_content_are_the_same(one: Message, other: Message) -> None:
    assert content_id(one) == content_id(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (says("user", "a"), says("system", "a")),
        (says("user", "a b"), says("user", "ab")),
        (calls('{"a": 1}'), calls('{"a": "1"}')),
        (calls('{"a": 1}'), calls('{"a": 1')),
        (calls("{}"), says("assistant")),
    ],
)
def test_other_content_is_another_message(one: Message, other: Message) -> None:
    assert canonical(one) != canonical(other)


def test_a_lone_surrogate_has_an_id_too() -> None:
    assert content_id(says("user", "\ud800")) != content_id(says("user", "\ud801"))


def test_billing_lines_are_dropped() -> None:
    billed = says("system", "x-anthropic-billing-header: cc_version=1; cch=9;", "Be brief.")
    assert tidied([billed, says("user", "a")])[0].text == "Be brief."
    alone = says("system", "x-anthropic-billing-header: cc_version=1;")
    assert tidied([alone, says("user", "a")]) == (says("user", "a"),)
    quoted = says("user", "x-anthropic-billing-header: what is that?")
    assert tidied([quoted]) == (quoted,)


def test_markers_stay_in_the_last_message_only() -> None:
    marker = says("system", "<total_tokens>5 tokens left</total_tokens>")
    messages = (says("user", "a"), marker, says("assistant", "b"), marker)
    assert tidied(messages) == (messages[0], messages[2], messages[3])
