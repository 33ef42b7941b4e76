"""Bodies of OpenAI's responses become requests or refusals, and events what its SDK reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from sample_turns import FULL, HEAD, call, turn, turns

from everwarm import errors
from everwarm.events import Event, Progress, Started
from everwarm.messages import Message, Reasoning, Text, ToolCall
from everwarm.request import Request
from everwarm.wire.format import ParsedRequest, StreamEncoder
from everwarm.wire.openai_responses import parse

SECRET = "s3cr3t input"
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


def asked(**fields: Any) -> ParsedRequest:
    return parse(json.dumps({"model": "m", "input": "hi", **fields}).encode(), "key")


def read(*items: Any, **fields: Any) -> Request:
    return asked(**({"input": list(items)} if items else {}), **fields).request


def encoder(**fields: Any) -> StreamEncoder:
    return asked(**fields).encoder(HEAD)


def refused(**fields: Any) -> errors.RequestError:
    with pytest.raises(errors.RequestError) as caught:
        asked(**fields)
    assert SECRET not in caught.value.message + str(caught.value.param)
    return caught.value


def test_plain_input_is_a_user_message() -> None:
    plain = asked(instructions="Be kind.")
    assert plain.request.messages == (
        Message("system", (Text("Be kind."),)),
        Message("user", (Text("hi"),)),
    )
    assert plain.stored_input is not None and not plain.stream
    assert [json.loads(i.json)["role"] for i in plain.stored_input] == ["user"]
    assert asked(store=False).stored_input is None


def thinks(id: str, text: str = "hm") -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": id, "summary": [], "content": content}


def says(id: str, text: str = "so") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": id, "role": "assistant", "content": content}


CALL = {"type": "function_call", "call_id": "calla", "name": "look", "arguments": "{ }"}
SEEN = {"type": "function_call_output", "call_id": "calla", "output": "seen"}


def test_the_items_of_one_reply_are_one_message() -> None:
    developer = {"role": "developer", "content": [{"type": "input_text", "text": "rules"}]}
    messages = read(developer, thinks("rs_x"), says("msg_x"), CALL, SEEN).messages
    assert messages == (
        Message("system", (Text("rules"),)),
        Message("assistant", (Reasoning("hm"), Text("so"), ToolCall("calla", "look", "{ }"))),
        Message("tool", (Text("seen"),), tool_call_id="calla"),
    )


def test_two_replies_in_a_row_are_two_messages() -> None:
    ours = [says("msg_aa_0"), thinks("rs_aa_1"), says("msg_aa_2"), says("msg_bb_0")]
    assert len(read(*ours).messages) == 2
    foreign = [thinks("x1"), says("x2"), thinks("x3"), says("x4")]
    assert len(read(*foreign).messages) == 2


def test_sealed_reasoning_is_read_where_nothing_is_shown() -> None:
    made = encoder(include=["reasoning.encrypted_content"]).fold(FULL)["output"]
    bare = {**made[0], "content": [], "summary": []}
    assert read(bare, *made[1:]).messages[0].reasoning == "Where is it?"
    assert read(*made).messages == read(bare, *made[1:]).messages


def test_summaries_are_read_as_reasoning() -> None:
    made = encoder(reasoning={"summary": "auto"}).fold(FULL)["output"]
    assert "content" not in made[0]
    assert read(*made).messages[0].reasoning == "Where is it?"


def test_all_kinds_of_tools_become_functions() -> None:
    space = {"type": "namespace", "name": "web", "tools": [{**LOOK, "name": "get"}, LOOK]}
    note = {"type": "custom", "name": "note", "description": "Notes."}
    search = {"type": "web_search", "external_web_access": True}
    request = read(tools=[space, search, LOOK, note])
    assert [t.name for t in request.tools] == ["look", "note", "get", "web__look"]
    back = {**CALL, "namespace": "web"}
    assert read(back, tools=[space, LOOK]).messages[0].tool_calls[0].name == "web__look"
    made = encoder(tools=[space, LOOK]).fold(turn(*call(0, "c", "web__look", "{}")))
    assert made["output"][0]["name"] == "look"
    assert made["output"][0]["namespace"] == "web"


def test_a_custom_call_comes_back_as_it_was() -> None:
    note = {"type": "custom", "name": "note"}
    said = turn(*call(0, "c", "note", '{"input": "a\\nb"}'), finish="tool_calls")
    (item,) = encoder(tools=[note]).fold(said)["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "a\nb")
    (reply,) = read(item, tools=[note]).messages
    assert json.loads(reply.tool_calls[0].arguments) == {"input": "a\nb"}


def test_settings_are_read() -> None:
    request = read(
        temperature=0.5,
        top_p=0,
        max_output_tokens=7,
        reasoning={"effort": "none"},
        include=["message.output_text.logprobs"],
        tool_choice="none",
    )
    assert request.sampling.temperature == 0.0
    assert (request.max_tokens, request.logprobs, request.tool_choice) == (7, 0, "none")
    assert request.template_args == {"enable_thinking": False}


def test_bookkeeping_changes_nothing() -> None:
    noted = ("user", "service_tier", "client_metadata", "prompt_cache_retention", "mystery")
    request = read(**{name: {"any": "thing"} for name in noted})
    assert request == read()
    assert set(request.ignored) == set(noted)


def test_hints_that_are_newer_than_the_server_are_noted() -> None:
    request = read(
        truncation="auto",
        reasoning={"effort": "ultra", "summary": "long", "mode": "pro"},
        include=["web_search_call.action.sources", "reasoning.encrypted_content"],
        tools=[{"type": "file_search", "vector_store_ids": ["v"]}],
    )
    assert request == read()
    assert set(request.ignored) == {
        "truncation", "reasoning.effort", "reasoning.summary", "reasoning.mode", "include[]",
        "tools[type=file_search]",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": SECRET}]}, "input.0.type"),
        ({"input": [{"type": "item_reference", "id": SECRET}]}, "input.0.id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": SECRET}]}]},
         "input.0.content.0"),
        ({"input": [{**SEEN, "output": [{"type": "input_file", "file_data": SECRET}]}]},
         "input.0.output.0"),
        ({"tools": [{"type": "local_shell"}]}, "tools.0.type"),
        ({"tools": [{**LOOK, "strict": "very"}]}, "tools.0.strict"),
        ({"tools": [{"type": "custom", "name": "a", "format": {"type": "grammar"}}]},
         "tools.0.format.type"),
        ({"tools": [LOOK, LOOK]}, "tools"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"tools": [{"type": "file_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


@settings(deadline=None)
@given(turns())
def test_a_stream_adds_up_to_the_whole(events: list[Event]) -> None:
    for fields in (
        {},
        {"reasoning": {"summary": "auto"}, "tools": [{"type": "custom", "name": "look"}]},
    ):
        whole, stream = encoder(**fields).fold(events), encoder(**fields)
        chunks = [c for e in events for c in stream.chunks(e)]
        for n, c in enumerate(chunks):
            EVENTS.validate_python(c)
            assert c["sequence_number"] == n
        Response.model_validate(whole)
        assert chunks[-1]["response"] == whole
        done = [c["item"] for c in chunks if c["type"] == "response.output_item.done"]
        assert done == whole["output"]
        assert [c["type"] for c in chunks[:2]] == ["response.created", "response.in_progress"]


def test_the_events_that_codex_waits_for() -> None:
    stream = encoder(reasoning={"summary": "auto"}, include=["reasoning.encrypted_content"])
    kinds = [c["type"].removeprefix("response.") for e in FULL for c in stream.chunks(e)]
    assert kinds == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.delta", "reasoning_summary_text.done",
        "reasoning_summary_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip


def test_a_sign_of_life_is_in_progress_and_says_how_far_it_is() -> None:
    stream = encoder()
    stream.chunks(Started(100))
    (waits,) = stream.keepalive(Progress(0, 100, 0, "waits for memory"))
    assert waits["everwarm"]["progress"]["waits"] == "waits for memory"
    (alive,) = stream.keepalive(Progress(50, 100, 20))
    EVENTS.validate_python(alive)
    assert alive["type"] == "response.in_progress"
    assert alive["everwarm"] == {"progress": {"done": 50, "total": 100, "cached": 20}}


def test_a_failed_stream_ends_with_response_failed() -> None:
    stream = encoder()
    for e in FULL[:6]:
        stream.chunks(e)
    chunks = stream.failed(errors.EngineError("It broke."))
    for c in chunks:
        EVENTS.validate_python(c)
    last = chunks[-1]["response"]
    assert chunks[-1]["type"] == "response.failed"
    assert last["status"] == "failed"
    assert last["error"]["message"] == "It broke."
