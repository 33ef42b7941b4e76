"""Bodies become requests or refusals, and events become what the official SDK reads."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from everwarm import errors
from everwarm.events import (
    CallDelta,
    CallEnd,
    CallStart,
    Event,
    Finish,
    Finished,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    TurnRecord,
)
from everwarm.messages import Message, Reasoning, Text, ToolCall
from everwarm.request import AnswerSchema, Tool
from everwarm.wire import sse
from everwarm.wire.error_json import INTERNAL, openai_error
from everwarm.wire.format import Head, ParsedRequest
from everwarm.wire.openai_chat import parse
from everwarm.wire.openai_chat_stream import Encoder

HI = {"role": "user", "content": "hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
SECRET = "s3cr3t input"
HEAD = Head("chatcmpl-1", "m", 123)


def read(**fields: Any) -> ParsedRequest:
    return parse(orjson.dumps({"messages": [HI], **fields}))


def start_of(body: ParsedRequest) -> dict[str, Any]:
    return body.encoder(HEAD).chunks(Started(1))[0]


def refused(body: bytes) -> errors.RequestError:
    with pytest.raises(errors.RequestError) as caught:
        parse(body)
    assert SECRET not in caught.value.message + str(caught.value.param)
    return caught.value


def param_of(**fields: Any) -> str | None:
    return refused(json.dumps({"messages": [HI], **fields}).encode()).param


def test_plain_body_gets_the_defaults() -> None:
    body = parse(b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}', namespace="k")
    request = body.request
    assert not body.stream and "usage" not in start_of(body)
    assert (request.model, request.namespace) == ("m", "k")
    assert request.messages == (Message("user", (Text("hi"),)),)
    assert request.sampling.temperature == 1.0
    assert (request.max_tokens, request.logprobs, request.stop) == (None, None, ())


def test_every_role_is_read() -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {
            "role": "developer",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        HI,
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "content": "seen", "tool_call_id": "call_1", "name": "look"},
        {"role": "assistant", "content": "so", "reasoning": "ah", "refusal": None, "audio": None},
    ]
    assert read(messages=messages).request.messages == (
        Message("system", (Text("be kind"),)),
        Message("system", (Text("a"), Text("b"))),
        Message("user", (Text("hi"),)),
        Message("assistant", (Reasoning("hm"), ToolCall("call_1", "look", "{}"))),
        Message("tool", (Text("seen"),), tool_call_id="call_1"),
        Message("assistant", (Reasoning("ah"), Text("so"))),
    )


def test_sampling_and_limits_are_read() -> None:
    request = read(
        temperature=0,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        repetition_context_size=64,
        presence_penalty=-1,
        frequency_penalty=0.5,
        logit_bias={"50": -100},
        seed=-1,
        max_completion_tokens=9,
        stop="END",
        logprobs=True,
        top_logprobs=3,
        n=1,
    ).request
    s = request.sampling
    assert (s.temperature, s.top_p, s.top_k, s.min_p) == (0.0, 0.9, 40, 0.05)
    assert (s.repetition_penalty, s.repetition_context) == (1.1, 64)
    assert (s.presence_penalty, s.frequency_penalty) == (-1.0, 0.5)
    assert (s.logit_bias, s.seed) == ({50: -100.0}, 2**64 - 1)
    assert (request.max_tokens, request.stop, request.logprobs) == (9, ("END",), 3)
    assert read(logprobs=True).request.logprobs == 0
    assert read(stop=["a", "b"]).request.stop == ("a", "b")
    assert read(max_tokens=4).request.max_tokens == 4


def test_empty_nucleus_is_greedy() -> None:
    sampling = read(top_p=0).request.sampling
    assert (sampling.temperature, sampling.top_p) == (0.0, 1.0)


def test_tools_streaming_and_reasoning_are_read() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "default": None}}}
    function = {"name": "look", "description": "d", "parameters": schema, "strict": False}
    body = read(
        tools=[{"type": "function", "function": function}],
        tool_choice="none",
        stream=True,
        stream_options={"include_usage": True},
        reasoning_effort="low",
        chat_template_kwargs={"thinking": True},
        response_format={"type": "text"},
    )
    assert body.stream and "usage" in start_of(body)
    assert body.request.tools == (Tool("look", "d", schema),)
    assert body.request.tool_choice == "none"
    assert body.request.template_args == {"reasoning_effort": "low", "thinking": True}


def test_no_effort_turns_thinking_off() -> None:
    assert read(reasoning_effort="none").request.template_args == {"enable_thinking": False}
    explicit = read(reasoning_effort="none", chat_template_kwargs={"enable_thinking": True})
    assert explicit.request.template_args == {"enable_thinking": True}


def test_null_and_fields_without_effect_change_nothing() -> None:
    plain = read()
    noted = ("user", "safety_identifier", "metadata", "store", "service_tier", "verbosity")
    marked = read(**{name: {"any": [1]} for name in noted})
    assert marked.request == plain.request and marked.stream == plain.stream
    assert set(marked.request.ignored) == set(noted) and plain.request.ignored == ()
    nulls = read(stop=None, tools=None, temperature=None, functions=None, logit_bias=None)
    assert nulls.request == plain.request


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b'{"top_p": NaN}', b'{"top_p": 1e999}', b"\xff\xfe"),
        *(b'{"messages": "\\ud800"}', b"[" * 100_000, b'\xef\xbb\xbf{"messages": []}'),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refused(body).param is None


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": SECRET, "content": "x"}, "messages.0.role"),
        ({"role": ["user"], "content": "x"}, "messages.0.role"),
        ({"role": "function", "content": "x"}, "messages.0.role"),
        ({"content": "x"}, "messages.0.role"),
        (SECRET, "messages.0"),
        (None, "messages.0"),
        ({"role": "user"}, "messages.0.content"),
        ({"role": "user", "content": 5}, "messages.0.content"),
        ({"role": "user", "content": {"text": SECRET}}, "messages.0.content"),
        ({"role": "user", "content": [SECRET]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0.text"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": SECRET}}]},
            "messages.0.content.0",
        ),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": SECRET}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "messages.0.tool_calls"),
        ({"role": "tool", "content": "x"}, "messages.0.tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "messages.0.tool_calls.0.function"),
    ],
)
def test_wrong_messages_are_refused_by_path(message: object, param: str) -> None:
    error = refused(orjson.dumps({"messages": [message]}))
    assert error.param == param
    assert error.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": SECRET}, "messages"),
        ({"model": 5}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_context_size": 0}, "repetition_context_size"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {SECRET: 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"seed": 2**70}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"n": 9}, "n"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", 5]}, "stop.1"),
        ({"stop": ["a", ""]}, "stop.1"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"tool_choice": "often"}, "tool_choice.type"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools.0.type"),
        ({"tools": [{"type": 7}]}, "tools.0.type"),
        ({"tools": [None]}, "tools.0"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"repetition_penalty": 1.1, "repeat_penalty": 1.2}, "repetition_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
        ({"mirostat": 2}, "mirostat"),
        ({"typical_p": 0.5}, "typical_p"),
        ({"guided_json": {"type": "object"}}, "guided_json"),
        ({"num_predict": 10}, "num_predict"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"thinking": {"type": SECRET}}, "thinking.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"chat_template_kwargs": {"add_bos": True}}, "chat_template_kwargs.add_bos"),
        ({"functions": [SECRET]}, "functions"),
    ],
)
def test_wrong_parameters_are_refused_by_name(fields: dict[str, Any], param: str | None) -> None:
    assert param_of(**fields) == param


def test_what_cannot_be_held_to_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"properties": deep}
    for function, param in (
        ({"name": "f", "strict": "very"}, "tools.0.function.strict"),
        ({"name": "f", "parameters": deep}, "tools.0.function.parameters"),
        ({"name": ""}, "tools.0.function.name"),
    ):
        assert param_of(tools=[{"type": "function", "function": function}]) == param


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "id"]), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["messages", "stop", "tools", "seed", "n"]), json_values))
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        parse(orjson.dumps(fields))
    except errors.RequestError as e:
        assert openai_error(e)[0] == 400


def finished(reason: Finish) -> Finished:
    record = TurnRecord(
        id="t",
        model="m",
        at=0.0,
        finish=reason,
        prompt_tokens=10,
        cached_tokens=7,
        completion_tokens=5,
        reasoning_tokens=2,
    )
    return Finished(reason, record, Message("assistant", ()))


USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
LOGPROB = TokenLogprob(5, "é", -0.5, ((5, "é", -0.5), (6, "b", float("-inf"))))
TURN: list[Event] = [
    Started(10),
    Progress(10, 10, 7),
    ReasoningDelta("hm"),
    TextDelta("Hel"),
    TextDelta("lo", (LOGPROB,)),
    CallStart(0, "call_1", "look"),
    CallDelta(0, ""),
    CallDelta(0, '{"x":'),
    CallDelta(0, "1}"),
    CallEnd(0),
    CallStart(1, "call_2", "see"),
    CallDelta(1, "{}"),
    CallEnd(1),
    finished("tool_calls"),
]


def encoder(*, include_usage: bool = False) -> Encoder:
    return Encoder(HEAD, include_usage=include_usage)


def test_chunks_join_to_the_folded_message() -> None:
    chunks = [c for e in TURN for c in encoder().chunks(e)]
    whole = encoder().fold(TURN)["choices"][0]
    deltas = [c["choices"][0]["delta"] for c in chunks]
    message = whole["message"]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(d.get("content", "") for d in deltas) == message["content"] == "Hello"
    assert [d["reasoning_content"] for d in deltas if "reasoning_content" in d] == ["hm"]
    assert message["reasoning_content"] == "hm"
    calls: dict[int, dict[str, Any]] = {}
    for call in (c for d in deltas for c in d.get("tool_calls", ())):
        if "id" in call:
            calls[call.pop("index")] = call
        else:
            calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    assert list(calls.values()) == message["tool_calls"]
    assert [c["choices"][0]["finish_reason"] for c in chunks][-2:] == [None, "tool_calls"]


def test_usage_chunk_comes_last_and_only_if_wanted() -> None:
    chunks = [c for e in TURN for c in encoder(include_usage=True).chunks(e)]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], USAGE)
    assert all(c["usage"] is None and c["choices"] for c in chunks[:-1])
    assert all("usage" not in c for e in TURN for c in encoder().chunks(e))


def test_the_sdk_reads_everything() -> None:
    e = encoder(include_usage=True)
    for chunk in [*(c for event in TURN for c in e.chunks(event)), *e.keepalive(None)]:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    whole = ChatCompletion.model_validate(e.fold(TURN), strict=True)
    assert whole.usage is not None and whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 7
    assert (whole.id, whole.model, whole.created) == ("chatcmpl-1", "m", 123)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    token = logprobs.content[0]
    assert (token.token, token.bytes, token.logprob) == ("é", [0xC3, 0xA9], -0.5)
    assert [t.logprob for t in token.top_logprobs] == [-0.5, -9999.0]


def test_content_is_null_only_where_there_are_only_calls() -> None:
    calls: list[Event] = [CallStart(0, "a", "look"), CallDelta(0, "{}"), finished("tool_calls")]
    assert encoder().fold(calls)["choices"][0]["message"]["content"] is None
    assert encoder().fold([finished("length")])["choices"][0]["message"]["content"] == ""


def test_what_we_answer_can_be_sent_back() -> None:
    message = encoder().fold(TURN)["choices"][0]["message"]
    back = read(messages=[HI, message]).request.messages[1]
    assert (back.text, back.reasoning) == ("Hello", "hm")
    assert [c.id for c in back.tool_calls] == ["call_1", "call_2"]


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (errors.RequestError("m", param="p", code="c"), 400, "invalid_request_error", "c"),
        (errors.NotFound("m", code="gone"), 404, "invalid_request_error", "gone"),
        (errors.Forbidden("m", status=401), 401, "authentication_error", "invalid_api_key"),
        (errors.Forbidden("m"), 403, "permission_error", "forbidden"),
        (errors.EngineError("m"), 500, "server_error", "engine_error"),
        (errors.Overloaded("m"), 503, "server_error", "overloaded"),
        (errors.Cancelled("m"), 499, "server_error", "cancelled"),
    ],
)  # fmt: skip
def test_errors_have_openais_shape(error: Exception, status: int, kind: str, code: str) -> None:
    got, body, _ = openai_error(error)
    param = getattr(error, "param", None)
    assert got == status
    assert body == {"error": {"message": "m", "type": kind, "param": param, "code": code}}


def test_foreign_errors_say_nothing_of_themselves() -> None:
    for error in (ValueError(SECRET), errors.CacheFault(SECRET), errors.ConfigError(SECRET)):
        status, body, headers = openai_error(error)
        assert (status, body["error"]["message"], headers) == (500, INTERNAL, {})


def test_overloaded_says_when_to_come_back() -> None:
    assert openai_error(errors.Overloaded("m", retry_after_s=7))[2] == {"retry-after": "7"}


def test_frames_are_one_line_of_json() -> None:
    for text in ("a\nb", "é", "\ud800"):
        frame = sse.event({"text": text})
        assert frame.startswith(b"data: ") and frame.endswith(b"\n\n") and frame.count(b"\n") == 2
        assert json.loads(frame[6:]) == {"text": text}
    assert sse.DONE == b"data: [DONE]\n\n"


def test_what_a_reply_is_held_to_is_read() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    function = {"name": "f", "parameters": schema, "strict": True}
    given = read(
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    ).request
    assert given.tools == (Tool("f", "", schema, strict=True),)
    assert (given.tool_choice, given.named_tool, given.parallel_calls) == ("required", "f", False)
    assert given.shape == AnswerSchema(schema, "response_format.json_schema.schema")
    free = read(response_format={"type": "text"}).request
    assert (free.shape, free.tool_choice, free.parallel_calls) == (None, "auto", True)
