"""The official OpenAI SDK's responses and completions in front of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from serving import Server, save_talker, serving

LOOK: Any = {
    "type": "function",
    "name": "look",
    "description": "Looks at a place.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
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
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.root + "/v1", api_key="none", max_retries=0) as made:
        yield made


def args(reply: str, given: Any = "Look around.", **more: Any) -> dict[str, Any]:
    return {"model": "default", "input": given, "extra_body": {"everwarm": {"reply": reply}}} | more


def final(client: OpenAI, stream: bool, **request: Any) -> Any:
    if not stream:
        return client.responses.create(**request)
    with client.responses.stream(**request) as events:
        for _ in events:
            pass
        return events.get_final_response()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("summary", [None, "auto"])
def test_reasoning_text_and_parallel_calls(
    client: OpenAI, stream: bool, summary: str | None
) -> None:
    request = args(THOUGHT + CALLS, tools=[LOOK], include=["reasoning.encrypted_content"])
    response = final(client, stream, **request, reasoning={"summary": summary})
    reasoning, message, first, second = response.output
    shown = reasoning.summary if summary else reasoning.content
    assert [p.text for p in shown] == ["Where is it?"]
    assert reasoning.encrypted_content
    assert message.content[0].text == response.output_text == "I look."
    assert (first.name, first.arguments) == ("look", '{"at": "lake"}')
    assert (second.name, second.arguments) == ("look", '{"at": "hill"}')
    assert response.status == "completed"


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_stays_warm(client: OpenAI, server: Server, stream: bool) -> None:
    items: list[Any] = [{"role": "user", "content": f"Look around, {stream}."}]
    more: dict[str, Any] = {"tools": [LOOK], "store": False, "instructions": "Be brief."}
    reply = final(client, stream, **args(THOUGHT + CALLS, items, **more))
    items += [o.model_dump(exclude_none=True) for o in reply.output]
    items += [
        {"type": "function_call_output", "call_id": o.call_id, "output": "Water."}
        for o in reply.output
        if o.type == "function_call"
    ]
    last = final(client, stream, **args("A lake.", items, **more))
    record = server.turn()
    assert record["prefilled_tokens"] == record["new_tokens"]
    assert last.usage.input_tokens == record["prompt_tokens"]
    assert last.usage.input_tokens_details.cached_tokens == record["cached_tokens"] > 0


def test_an_answer_is_continued_by_its_id(client: OpenAI, server: Server) -> None:
    first = client.responses.create(**args("My name is Ada.", "Who are you?"))
    more = {"previous_response_id": first.id}
    second = client.responses.create(**args("Ada.", "Say it again.", **more))
    record = server.turn()
    assert record["prefilled_tokens"] == record["new_tokens"] < first.usage.total_tokens
    assert second.previous_response_id == first.id
    with pytest.raises(BadRequestError) as gone:
        client.responses.create(**args("x", previous_response_id="resp_nobody"))
    assert gone.value.code == "previous_response_not_found"
    unkept = client.responses.create(**args("x", store=False))
    with pytest.raises(BadRequestError):
        client.responses.create(**args("x", previous_response_id=unkept.id))


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_reply_is_incomplete(client: OpenAI, stream: bool) -> None:
    request = args("One two three.", max_output_tokens=2)
    response: Any = client.responses.create(**request, stream=stream)
    if stream:
        *_, last = response
        assert last.type == "response.incomplete"
        response = last.response
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"


def test_a_custom_tool_gets_plain_text(client: OpenAI) -> None:
    tool: Any = {"type": "custom", "name": "note", "description": "Takes a note."}
    call = '<tool_call>{"name": "note", "arguments": {"input": "a\\nb"}}</tool_call>'
    response = client.responses.create(**args(call, tools=[tool]))
    assert (response.output[0].type, response.output[0].input) == ("custom_tool_call", "a\nb")


def test_a_namespace_s_function_is_called_by_its_own_name(client: OpenAI) -> None:
    space: Any = {"type": "namespace", "name": "places", "description": "", "tools": [LOOK]}
    tools = [space, {"type": "web_search"}]
    call = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
    response = client.responses.create(**args(call, tools=tools))
    assert (response.output[0].name, response.output[0].namespace) == ("look", "places")


@pytest.mark.parametrize("stream", [False, True])
def test_completions_continue_a_text(client: OpenAI, stream: bool) -> None:
    request: dict[str, Any] = {"model": "default", "prompt": "The lake is", "max_tokens": 20}
    request["extra_body"] = {"everwarm": {"reply": " deep. <think>"}}
    if stream:
        options: Any = {"include_usage": True}
        chunks = list(client.completions.create(**request, stream=True, stream_options=options))
        text = "".join(c.choices[0].text for c in chunks if c.choices)
        usage = chunks[-1].usage
    else:
        whole = client.completions.create(**request)
        text, usage = whole.choices[0].text, whole.usage
    assert text == " deep. <think>"
    assert usage is not None and usage.prompt_tokens == 3


def test_completions_take_token_ids_and_give_logprobs(client: OpenAI) -> None:
    whole = client.completions.create(
        model="default", prompt=[10, 11, 12], max_tokens=3, logprobs=2, temperature=0
    )
    assert whole.usage is not None and whole.usage.prompt_tokens == 3
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert len(logprobs.tokens) == 3
    again = client.completions.create(model="default", prompt=[10, 11, 12], max_tokens=1)
    assert again.usage is not None and again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10, 99_999]}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
    ],
)
def test_completions_refuse_by_name(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.completions.create(model="default", **fields)
    assert refused.value.param == param
