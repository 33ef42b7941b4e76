"""The official Anthropic SDK in front of a real server with dictated replies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic, BadRequestError, NotFoundError
from serving import Server, save_talker, serving

LOOK: Any = {
    "name": "look",
    "description": "Looks at a place.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
}
THOUGHT = "<think>Where is it?</think>"
CALLS = (
    'I look.<tool_call>{"name": "look", "arguments": {"at": "lake"}}</tool_call>'
    '<tool_call>{"name": "look", "arguments": {"at": "hill"}}</tool_call>'
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    model = save_talker(tmp_path_factory.mktemp("models"), smollm2)
    with serving(model, "--forced-replies") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.root, api_key="none", max_retries=0) as made:
        yield made


def args(reply: str, messages: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    messages = messages or [{"role": "user", "content": "Look around."}]
    extra = {"everwarm": {"reply": reply}}
    return {"model": "default", "max_tokens": 200, "messages": messages, "extra_body": extra} | more


def final(client: Anthropic, stream: bool, **request: Any) -> Any:
    if not stream:
        return client.messages.create(**request)
    with client.messages.stream(**request) as events:
        return events.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_text_and_parallel_calls(client: Anthropic, stream: bool) -> None:
    message = final(client, stream, **args(THOUGHT + CALLS, tools=[LOOK]))
    thinking, text, first, second = message.content
    assert (thinking.type, thinking.thinking) == ("thinking", "Where is it?")
    assert thinking.signature
    assert (text.type, text.text) == ("text", "I look.")
    assert (first.name, first.input) == ("look", {"at": "lake"})
    assert (second.name, second.input) == ("look", {"at": "hill"})
    assert first.id != second.id
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_stays_warm(client: Anthropic, server: Server, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": f"Look around, {stream}."}]
    reply = final(client, stream, **args(THOUGHT + CALLS, messages, tools=[LOOK]))
    results = [
        {
            "type": "tool_result",
            "tool_use_id": c.id,
            "content": [{"type": "text", "text": "Water."}],
        }
        for c in reply.content
        if c.type == "tool_use"
    ]
    messages += [
        {"role": "assistant", "content": [c.model_dump() for c in reply.content]},
        {"role": "user", "content": [*results, {"type": "text", "text": "And?"}]},
    ]
    last = final(client, stream, **args("A lake.", messages, tools=[LOOK]))
    record = server.turn()
    assert record["prefilled_tokens"] == record["new_tokens"]
    assert last.usage.cache_read_input_tokens == record["cached_tokens"] > 0
    told = last.usage
    parts = told.input_tokens + told.cache_read_input_tokens + told.cache_creation_input_tokens
    assert parts == record["prompt_tokens"]
    assert last.stop_reason == "end_turn"


def test_omitted_thinking_is_only_signed_and_comes_back(client: Anthropic, server: Server) -> None:
    hidden = {"type": "adaptive", "display": "omitted"}
    messages: list[Any] = [{"role": "user", "content": "Think, please."}]
    reply = client.messages.create(**args(THOUGHT + "Here.", messages, thinking=hidden))
    assert reply.content[0].thinking == ""
    assert reply.content[0].signature
    messages += [
        {"role": "assistant", "content": [c.model_dump() for c in reply.content]},
        {"role": "user", "content": "Good."},
    ]
    client.messages.create(**args("Fine.", messages, thinking=hidden))
    record = server.turn()
    assert record["prefilled_tokens"] == record["new_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequence_and_length_are_told_apart(client: Anthropic, stream: bool) -> None:
    stopped = final(client, stream, **args("One two three.", stop_sequences=["two"]))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "two")
    assert stopped.content[0].text == "One "
    cut = final(client, stream, **args("One two three.", max_tokens=2))
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_in_thinking_ends_nothing(client: Anthropic, stream: bool) -> None:
    reply = "<think>First.\n\nSecond.</think>The answer is 4.\n\nMore."
    answer = final(client, stream, **args(reply, stop_sequences=["\n\n"]))
    thinking, text = answer.content
    assert (thinking.thinking, text.text) == ("First.\n\nSecond.", "The answer is 4.")
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "\n\n")


def test_max_tokens_zero_reads_ahead(client: Anthropic, server: Server) -> None:
    messages = [{"role": "user", "content": "A long story about a lake and a hill. " * 20}]
    ahead = client.messages.create(model="default", max_tokens=0, messages=messages)
    assert ahead.content == []
    assert (ahead.stop_reason, ahead.usage.output_tokens) == ("max_tokens", 0)
    client.messages.create(**args("Fine.", messages))
    assert server.turn()["prefilled_tokens"] == 1


def test_count_tokens_is_the_prompt_s_length(client: Anthropic, server: Server) -> None:
    messages: Any = [{"role": "user", "content": "How long is this?"}]
    counted = client.messages.count_tokens(
        model="default", messages=messages, tools=[LOOK], system="Be brief."
    )
    before = server.turn()["id"]
    client.messages.create(**args("So.", messages, tools=[LOOK], system="Be brief."))
    assert server.turn()["prompt_tokens"] == counted.input_tokens
    assert server.turn()["id"] != before


def test_refusals_have_anthropic_s_shape(client: Anthropic) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    with pytest.raises(BadRequestError) as refused:
        client.messages.create(**args("x", [{"role": "user", "content": [image]}]))
    error: Any = refused.value.body
    assert error["error"]["type"] == "invalid_request_error"
    assert "messages.0.content.0" in error["error"]["message"]
    assert refused.value.request_id
    with pytest.raises(NotFoundError):
        client.messages.create(**args("x", model="nobody"))
    with pytest.raises(BadRequestError, match="prompt is too long"):
        client.messages.create(**args("x", [{"role": "user", "content": "word " * 140_000}]))


def test_models_have_anthropic_s_shape(client: Anthropic) -> None:
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id
    assert model.type == "model"
