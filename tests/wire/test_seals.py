"""Sealed reasoning comes back, and a seal that holds far more than its bytes takes no memory."""

from __future__ import annotations

import json
from typing import Any

import pytest

from everwarm.errors import RequestError
from everwarm.wire import anthropic, openai_responses
from everwarm.wire.seals import MAX_NBYTES, Seals, seal


def test_what_was_sealed_comes_back() -> None:
    for text in ("", "So it is. é 😀", "x" * 100_000, "\ud800"):
        assert Seals().unseal(seal(text)) == text


@pytest.mark.parametrize("sealed", ["", "ew1.", "ew1.!!", "theirs", seal("whole")[:-8]])
def test_what_is_no_seal_holds_nothing(sealed: str) -> None:
    assert Seals().unseal(sealed) == ""


def test_all_seals_of_a_body_have_one_room() -> None:
    seals = Seals(room_nbytes=10)
    assert seals.unseal(seal("x" * 6)) == "x" * 6
    assert seals.unseal(seal("y" * 4)) == "y" * 4
    with pytest.raises(RequestError, match="Sealed reasoning"):
        seals.unseal(seal("z"))


def test_many_small_seals_of_much_reasoning_are_refused() -> None:
    large = seal("a" * (MAX_NBYTES // 4))
    thought: Any = {"type": "redacted_thinking", "data": large}
    item: Any = {"type": "reasoning", "encrypted_content": large}
    for parts, is_read in (([thought] * 4, True), ([thought] * 5, False)):
        said = [{"role": r, "content": c} for r, c in (("assistant", parts), ("user", "x"))]
        body = json.dumps({"max_tokens": 1, "messages": said}).encode()
        for _ in range(2):  # a message that came before has no room of its own
            if is_read:
                anthropic.parse(body)
            else:
                with pytest.raises(RequestError, match="Sealed reasoning"):
                    anthropic.parse(body)
    with pytest.raises(RequestError, match="Sealed reasoning"):
        openai_responses.parse(json.dumps({"input": [item] * 5}).encode())


def test_tools_in_namespaces_are_counted_too() -> None:
    tools = [{"type": "function", "name": f"f{n}"} for n in range(1025)]
    body = {"input": "x", "tools": [{"type": "namespace", "name": "n", "tools": tools}]}
    with pytest.raises(RequestError, match="1,024 in all"):
        openai_responses.parse(json.dumps(body).encode())
