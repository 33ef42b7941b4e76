"""Anthropic's bodies become requests or refusals, and events become what its SDK reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from pydantic import TypeAdapter
from sample_turns import FULL, HEAD, turn, turns

from everwarm import errors
from everwarm.events import Event, Progress, ReasoningDelta, Started, TextDelta
from everwarm.messages import Message, Reasoning, Text, ToolCall
from everwarm.request import AnswerSchema, Request, Tool
from everwarm.wire.anthropic import parse, parse_count
from everwarm.wire.anthropic_stream import Encoder
from everwarm.wire.error_json import anthropic_error
from everwarm.wire.seals import seal

HI = {"role": "user", "content": "hi"}
SECRET = "s3cr3t input"
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
PAGE = {"type": "document", "source": {"type": "text", "data": "A page."}}
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def read(**fields: Any) -> Request:
    body = {"model": "m", "max_tokens": 9, "messages": [HI], **fields}
    return parse(json.dumps(body).encode(), "key").request


def refused(**fields: Any) -> errors.RequestError:
    with pytest.raises(errors.RequestError) as caught:
        read(**fields)
    assert SECRET not in caught.value.message + str(caught.value.param)
    return caught.value


def test_plain_body_is_read() -> None:
    request = read()
    assert (request.model, request.namespace, request.max_tokens) == ("m", "key", 9)
    assert request.messages == (Message("user", (Text("hi"),)),)
    assert request.sampling.temperature == 1.0


def test_system_is_text_or_blocks_and_leaves_bookkeeping_out() -> None:
    billing = {"type": "text", "text": "x-anthropic-billing-header: v=1"}
    block = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    as_text = read(system="Be kind.").messages
    assert as_text == read(system=[billing, block]).messages
    assert as_text[0] == Message("system", (Text("Be kind."),))
    assert len(read(system=[billing]).messages) == 1


def test_system_messages_in_the_middle_stay_in_place() -> None:
    messages = [HI, {"role": "system", "content": "Now plan."}, HI]
    assert [m.role for m in read(messages=messages).messages] == ["user", "system", "user"]


def test_a_tool_loop_is_read() -> None:
    use = {"type": "tool_use", "id": "calla", "name": "look", "input": {"b": 1, "a": [2]}}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    result = {"type": "tool_result", "tool_use_id": "calla", "content": "seen"}
    failed = {"type": "tool_result", "tool_use_id": "callb", "is_error": True, "content": [
        {"type": "text", "text": "gone"}
    ]}  # fmt: skip
    say = {"type": "text", "text": "and?"}
    messages = [
        HI,
        {"role": "assistant", "content": [thinking, say, use]},
        {"role": "user", "content": [say, result, failed]},
    ]
    _, reply, *rest = read(messages=messages).messages
    arguments = '{"b":1,"a":[2]}'
    assert reply == Message(
        "assistant", (Reasoning("hm"), Text("and?"), ToolCall("calla", "look", arguments))
    )
    assert rest == [
        Message("tool", (Text("seen"),), tool_call_id="calla"),
        Message("tool", (Text("Error: "), Text("gone")), tool_call_id="callb"),
        Message("user", (Text("and?"),)),
    ]


def test_hidden_thinking_is_read_from_its_signature() -> None:
    hidden = {"type": "thinking", "thinking": "", "signature": seal("deep")}
    foreign = {"type": "thinking", "thinking": "", "signature": "ew1.notours"}
    text = {"type": "text", "text": "so"}
    messages = [HI, {"role": "assistant", "content": [hidden, foreign, text]}, HI]
    assert read(messages=messages).messages[1].reasoning == "deep"


def test_a_deferred_tool_is_shown_where_it_is_referred_to() -> None:
    plain = {"name": "look", "input_schema": {"type": "object"}}
    later = {**plain, "name": "fetch", "description": "Fetches.", "defer_loading": True}
    content = [{"type": "tool_reference", "tool_name": "fetch"}]
    result = {"type": "tool_result", "tool_use_id": "calla", "content": content}
    request = read(tools=[later, plain], messages=[{"role": "user", "content": [result]}])
    assert request.tools == (Tool("look", "", {"type": "object"}),)
    assert request.deferred == (Tool("fetch", "Fetches.", {"type": "object"}),)
    shown = json.loads(request.messages[0].text)
    assert shown["function"] == {
        "name": "fetch",
        "description": "Fetches.",
        "parameters": {"type": "object"},
    }


def test_thinking_and_effort_reach_the_template() -> None:
    assert read(thinking={"type": "enabled"}).template_args == {"enable_thinking": True}
    assert read(thinking={"type": "disabled"}).template_args == {"enable_thinking": False}
    assert read(thinking={"type": "adaptive"}).template_args == {}
    assert read(output_config={"effort": "high"}).template_args == {"reasoning_effort": "high"}


def test_a_thinking_budget_is_the_requests() -> None:
    request = read(thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000)
    assert (request.thinking_budget, request.template_args["enable_thinking"]) == (2000, True)
    assert read().thinking_budget is None
    assert read(everwarm={"thinking_budget": 0}).thinking_budget == 0
    bad = {"type": "enabled", "budget_tokens": 0}
    assert refused(thinking=bad).param == "thinking.budget_tokens"


def test_cache_control_and_bookkeeping_change_nothing() -> None:
    marked = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    more = {name: {"any": "thing"} for name in ("metadata", "service_tier", "speed", "betas")}
    request = read(messages=[{"role": "user", "content": [marked]}], **more)
    assert request == read()
    assert set(request.ignored) == {*more, "messages[].content[].cache_control"}


def test_counting_needs_no_limit() -> None:
    body = {"model": "m", "messages": [HI], "system": "Be kind.", "tools": []}
    assert len(parse_count(json.dumps(body).encode()).messages) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [HI, {"role": "assistant", "content": "and"}]}, "messages"),
        ({"messages": [{"role": SECRET, "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": SECRET}]}]},
         "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": SECRET}]}]},
         "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a",
          "content": [{"type": "image", "source": {}}]}]}]}, "messages.0.content.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
         "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "document",
          "source": {"type": "base64", "data": SECRET}}]}]}, "messages.0.content.0.source"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "b",
          "input": {}}]}]}, "messages.0.content.0"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0.type"),
        ({"tools": [{"type": "text_editor_20250728", "name": "e"}]}, "tools.0.type"),
        ({"tools": [{"type": 5, "name": "e"}]}, "tools.0.type"),
        ({"tools": [SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
         "tool_choice"),
        ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, "tool_choice"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
         "context_management.edits.0"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
         "context_management.edits.0"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015",
          "keep": {"type": "thinking_turns", "value": 1}}]}}, "context_management.edits.0"),
        ({"messages": [{"role": "user", "content": [{**PAGE, "citations": {"enabled": True}}]}]},
         "messages.0.content.0.citations.enabled"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "u"}]}, "mcp_servers"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"tools": [{"name": "a"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "most"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"stop_sequences": [""]}, "stop_sequences.0"),
        ({"temperature": "hot"}, "temperature"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def accumulated(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client that follows the stream ends up with."""
    (start,) = [c for c in chunks if c["type"] == "message_start"]
    message, texts = dict(start["message"]), dict[int, list[str]]()
    for c in chunks:
        match c["type"]:
            case "content_block_start":
                assert c["index"] == len(message["content"])
                message["content"] = [*message["content"], dict(c["content_block"])]
                texts[c["index"]] = []
            case "content_block_delta":
                delta, block = c["delta"], message["content"][c["index"]]
                match delta["type"]:
                    case "signature_delta":
                        block["signature"] = delta["signature"]
                    case "input_json_delta":
                        texts[c["index"]].append(delta["partial_json"])
                    case kind:
                        block[kind.removesuffix("_delta")] += delta[kind.removesuffix("_delta")]
            case "content_block_stop":
                block = message["content"][c["index"]]
                if block["type"] == "tool_use":
                    said = "".join(texts[c["index"]])
                    block["input"] = json.loads(said) if said.startswith("{") else {}
            case "message_delta":
                message |= c["delta"]
                message["usage"] = {**message["usage"], **c["usage"]}
    return message


@settings(deadline=None)
@given(turns())
def test_a_stream_adds_up_to_the_whole(events: list[Event]) -> None:
    whole, encoder = Encoder(HEAD).fold(events), Encoder(HEAD)
    chunks = [c for e in events for c in encoder.chunks(e)]
    for c in chunks:
        EVENTS.validate_python(c)
    SdkMessage.model_validate(whole)
    assert accumulated(chunks) == whole


def test_a_whole_message() -> None:
    message = Encoder(HEAD).fold(FULL)
    assert [b["type"] for b in message["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert message["content"][2]["input"] == {"at": "lake"}
    assert message["stop_reason"] == "tool_use"
    usage = message["usage"]
    assert usage["cache_read_input_tokens"] == 90
    assert usage["cache_creation_input_tokens"] == 9
    assert usage["input_tokens"] == 1


def test_signs_of_life_are_content_and_say_how_far_it_is() -> None:
    encoder = Encoder(HEAD)
    assert encoder.chunks(Started(100)) == []
    waits = Progress(0, 100, 0, "waits for memory")
    assert encoder.chunks(waits) == []  # how much is cached is not known yet
    alive = encoder.keepalive(Progress(50, 100, 20))
    kinds = [c["type"] for c in alive]
    assert kinds == ["message_start", "content_block_start", "ping", "content_block_delta"]
    assert alive[2]["everwarm"] == {"progress": {"done": 50, "total": 100, "cached": 20}}
    again = encoder.keepalive(None)
    assert [c["type"] for c in again] == ["ping", "content_block_delta"]
    rest = [c for e in [TextDelta("so"), *turn()[3:]] for c in encoder.chunks(e)]
    message = accumulated([*alive, *again, *rest])
    assert message["content"] == [{"type": "text", "text": "so"}]


def test_thinking_behind_a_sign_of_life_gets_its_own_block() -> None:
    encoder = Encoder(HEAD)
    chunks = [*encoder.keepalive(None), *encoder.chunks(ReasoningDelta("hm"))]
    chunks += encoder.keepalive(None) + [c for e in turn()[3:] for c in encoder.chunks(e)]
    blocks = accumulated(chunks)["content"]
    assert [(b["type"], b.get("text"), b.get("thinking")) for b in blocks] == [
        ("text", "", None),
        ("thinking", None, "hm"),
    ]


def test_hidden_thinking_streams_no_words() -> None:
    encoder = Encoder(HEAD, hides_thinking=True)
    chunks = [c for e in FULL for c in encoder.chunks(e)]
    assert "Where" not in json.dumps(chunks)
    assert Encoder(HEAD, hides_thinking=True).fold(FULL) == accumulated(chunks)


def test_a_failed_stream_ends_with_an_error_event() -> None:
    (last,) = Encoder(HEAD).failed(errors.EngineError("It broke."))
    assert last == {"type": "error", "error": {"type": "api_error", "message": "It broke."}}


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.RequestError("x"), 400, "invalid_request_error"),
        (errors.NotFound("x"), 404, "not_found_error"),
        (errors.Forbidden("x", status=401), 401, "authentication_error"),
        (errors.Forbidden("x"), 403, "permission_error"),
        (errors.Overloaded("x"), 503, "overloaded_error"),
        (errors.EngineError("x"), 500, "api_error"),
        (ZeroDivisionError("secret"), 500, "api_error"),
    ],
)
def test_errors_have_anthropic_s_names(error: Exception, status: int, kind: str) -> None:
    got, body, _ = anthropic_error(error)
    assert (got, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert "secret" not in json.dumps(body)


def test_claude_codes_title_call_is_read() -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    form = {"type": "json_schema", "schema": schema}
    request = read(output_config={"effort": "low", "format": form}, tools=[])
    assert request.shape == AnswerSchema(schema, "output_config.format.schema")
    assert read(output_format=form).shape == AnswerSchema(schema, "output_format.schema")


def test_the_choice_of_tools_is_read() -> None:
    tool = {"name": "look", "input_schema": {"type": "object"}}
    request = read(
        tools=[tool],
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
    )
    assert (request.tool_choice, request.named_tool, request.parallel_calls) == (
        "required",
        "look",
        False,
    )
    assert read(tools=[tool], tool_choice={"type": "any"}).tool_choice == "required"


def test_a_hosted_tool_is_noted_and_not_offered() -> None:
    own = {"name": "look", "input_schema": {"type": "object"}}
    for kind in ("web_search_20250305", "web_search_20991231", "code_execution_20250825"):
        request = read(tools=[{**SEARCH, "type": kind}, own])
        assert [t.name for t in request.tools] == ["look"]
        assert request.ignored == (f"tools[type={kind}]",)
    assert read(tools=[SEARCH, own], tool_choice={"type": "any"}).tool_choice == "required"
    assert read(tools=[{"type": SECRET, "name": "x"}]).ignored == ("tools[type=?]",)


def test_an_edit_of_the_context_that_cuts_nothing_is_done() -> None:
    edits = [{"type": "clear_thinking_20251015", "keep": keep} for keep in ("all", {"type": "all"})]
    assert read(context_management={"edits": edits}).ignored == ()
    assert read(context_management={"edits": []}) == read(context_management=None) == read()


def test_a_document_that_is_not_to_be_cited_is_read() -> None:
    page = {**PAGE, "title": "T", "citations": {"enabled": False}}
    request = read(messages=[{"role": "user", "content": [page]}])
    assert (request.messages[0].text, request.ignored) == ("T\nA page.", ())


def test_what_claude_code_shows_in_its_terminal_is_read() -> None:
    thinking = {"type": "adaptive", "display": "updates"}
    request = read(thinking=thinking, safeguards=[{"type": "dangerous_tool_use"}])
    assert request == read(thinking={"type": "adaptive"})
    assert set(request.ignored) == {"thinking.display", "safeguards"}
    assert read(thinking={"type": "between_tools"}).ignored == ("thinking.type",)
    assert read(output_config={"effort": "ultra"}).ignored == ("output_config.effort",)


def test_a_system_message_is_cleared_when_it_says_so() -> None:
    note = {"role": "system", "content": "Now plan.", "clear_at": "next_user_message"}
    says = {"role": "assistant", "content": "ok"}
    assert [m.role for m in read(messages=[HI, note]).messages] == ["user", "system"]
    assert [m.role for m in read(messages=[HI, note, says, HI]).messages] == [
        "user", "assistant", "user",
    ]  # fmt: skip
    kept = {**note, "clear_at": "never"}
    assert len(read(messages=[HI, kept, says, HI]).messages) == 4
