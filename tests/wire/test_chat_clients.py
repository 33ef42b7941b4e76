"""What clients and providers add to OpenAI's chat completions: read, noted or refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from everwarm.errors import RequestError
from everwarm.messages import Message, Reasoning, Text, ToolCall
from everwarm.wire.format import ParsedRequest
from everwarm.wire.openai_chat import parse

HI = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def read(**fields: Any) -> ParsedRequest:
    return parse(orjson.dumps({"messages": [HI], **fields}))


def test_replies_as_other_providers_left_them_are_read() -> None:
    foreign = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "so"}, {"type": "refusal", "refusal": "No."}],
        "id": "msg_1", "annotations": [{"type": "url_citation"}], "audio": None,
        "function_call": None, "refusal": None, "provider_specific_fields": {"a": 1},
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        "reasoning_details": [{"type": "reasoning.text", "text": "hm"}], "weight": 1,
        "tool_calls": [{**CALL, "function": {"name": "look", "arguments": {"at": [1]}}}],
    }  # fmt: skip
    body = read(messages=[HI, foreign, {**HI, "weight": 1}])
    _, reply, _ = body.request.messages
    assert reply == Message(
        "assistant",
        (Reasoning("hm"), Text("so"), Text("No."), ToolCall("call_1", "look", '{"at":[1]}')),
    )
    assert set(body.request.ignored) == {
        f"messages[].{name}"
        for name in ("id", "annotations", "provider_specific_fields", "thinking_blocks", "weight",
                     "reasoning_details", "content[].signature")
    }  # fmt: skip


def test_a_refusal_is_what_a_reply_said() -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I can't."}
    assert read(messages=[HI, refused, HI]).request.messages[1].text == "I can't."


def test_speakers_have_names() -> None:
    messages = [{**HI, "name": "ann"}, {"role": "assistant", "content": "x", "name": "bot"}]
    names = [m.name for m in read(messages=[*messages, {**HI, "name": ""}]).request.messages]
    assert names == ["ann", "bot", None]
    for name in ("n" * 257, 5):
        with pytest.raises(RequestError) as refused:
            read(messages=[{**HI, "name": name}])
        assert refused.value.param == "messages.0.name"


def test_names_of_other_servers_are_read() -> None:
    request = read(repeat_penalty=1.1, repeat_last_n=64, num_ctx=8192, top_k=-1).request
    s = request.sampling
    assert (s.repetition_penalty, s.repetition_context, s.top_k) == (1.1, 64, 0)
    assert request.ignored == ("num_ctx",)
    assert read(repeat_penalty=1.1, repeat_last_n=0).request.sampling.repetition_penalty == 1.0
    assert read(repeat_penalty=1.1, repeat_last_n=-1).request.sampling.repetition_context == 2**20
    both = read(repetition_penalty=1.1, repeat_penalty=1.1)
    assert both.request == read(repeat_penalty=1.1).request
    neutral = read(
        mirostat=0, typical_p=1.0, tfs_z=1, dry_multiplier=0.0, num_predict=-1, format=""
    )
    assert neutral.request == read().request and neutral.request.ignored == ()


def test_thinking_is_asked_for_in_several_ways() -> None:
    def args(**fields: Any) -> Any:
        return read(**fields).request.template_args

    assert args(thinking={"type": "disabled"}) == {"enable_thinking": False}
    assert args(thinking={"type": "enabled", "budget_tokens": 9}) == {"enable_thinking": True}
    assert read(thinking={"type": "enabled", "budget_tokens": 9}).request.thinking_budget == 9
    assert args(reasoning={"enabled": False}) == {"enable_thinking": False}
    assert args(reasoning={"effort": "low"}, reasoning_effort="high") == {
        "reasoning_effort": "high"
    }
    assert args(reasoning_effort="max") == {"reasoning_effort": "max"}
    assert read(reasoning_effort="ultra").request.ignored == ("reasoning_effort",)
    assert read(reasoning={"effort": 5, "exclude": True}).request.ignored == (
        "reasoning.effort", "reasoning.exclude",
    )  # fmt: skip


def test_a_hosted_tool_is_noted_and_not_offered() -> None:
    own = {"type": "function", "function": {"name": "look"}}
    odd = {"type": "web_search", "name": {"a": 1}, "function": 7}
    assert read(tools=[odd, own], tool_choice="required").request.tools[0].name == "look"
    request = read(tools=[{"type": "web_search", "user_location": {}}, own]).request
    assert [t.name for t in request.tools] == ["look"]
    assert request.ignored == ("tools[type=web_search]",)
