"""What is left of the SDKs' contract: chat completions as a whole, and aborts in every format.

Anthropic's messages, responses and structured output have files of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from openai import BadRequestError, OpenAI
from serving import Server, save_talker, serving

LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks at a place.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
CALLS = (
    '<think>Where is it?</think>I look.<tool_call>{"name": "look", "arguments": {"at": "lake"}}'
    '</tool_call><tool_call>{"name": "look", "arguments": {"at": "hill"}}</tool_call>'
)
LONG = " ".join(str(n) for n in range(400))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    model = save_talker(tmp_path_factory.mktemp("models"), smollm2)
    with serving(model, "--forced-replies", "--context-length", "4096") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.root + "/v1", api_key="none", max_retries=0) as made:
        yield made


def said(client: OpenAI, stream: bool, reply: str, messages: list[Any], **more: Any) -> Any:
    """The completion, folded by the SDK where it is streamed."""
    asked: dict[str, Any] = {"model": "default", "messages": messages, **more}
    asked["extra_body"] = {"everwarm": {"reply": reply}}
    if not stream:
        return client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
        return events.get_final_completion()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_text_and_parallel_calls(client: OpenAI, stream: bool) -> None:
    answer = said(client, stream, CALLS, [user("Look around.")], tools=[LOOK])
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content) == ("I look.", "Where is it?")
    first, second = message.tool_calls
    assert [json.loads(c.function.arguments) for c in (first, second)] == [
        {"at": "lake"},
        {"at": "hill"},
    ]
    assert first.id != second.id and first.function.name == "look"
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_call_s_deltas_are_as_the_sdk_joins_them(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="default", messages=[user("Look.")], tools=[LOOK], stream=True,  # type: ignore[list-item]
        extra_body={"everwarm": {"reply": CALLS}},
    )  # fmt: skip
    deltas = [c for chunk in stream for c in chunk.choices[0].delta.tool_calls or []]
    assert [d.index for d in deltas if d.id] == [0, 1]
    assert all(d.function and d.function.name == "look" for d in deltas if d.id)
    assert not any(d.function and d.function.name for d in deltas if not d.id)
    assert "".join(_arguments(deltas, 0)) == '{"at": "lake"}'
    assert "".join(_arguments(deltas, 1)) == '{"at": "hill"}'


def _arguments(deltas: list[Any], index: int) -> list[str]:
    return [d.function.arguments or "" for d in deltas if d.index == index and d.function]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_stays_warm(client: OpenAI, server: Server, stream: bool) -> None:
    messages: list[Any] = [user("How is the lake? " * 20 + str(stream))]
    reply = said(client, stream, CALLS, messages, tools=[LOOK])
    before = reply.usage.prompt_tokens + reply.usage.completion_tokens
    messages.append(reply.choices[0].message.model_dump(exclude_none=True))
    for call in reply.choices[0].message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "It is cold."})
    answer = said(client, stream, "It is cold.", messages, tools=[LOOK])
    assert answer.choices[0].message.content == "It is cold."
    assert answer.usage.prompt_tokens_details.cached_tokens >= before - 1
    assert server.turn()["prefilled_tokens"] <= server.turn()["new_tokens"] + 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_before_it_and_its_tokens_were_written(
    client: OpenAI, stream: bool
) -> None:
    plain = said(client, stream, "One two", [user("Count.")])
    stopped = said(client, stream, "One two three four", [user("Count.")], stop=["three"])
    assert stopped.choices[0].message.content == "One two "
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.usage.completion_tokens > plain.usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_neither_reasoning_nor_calls(client: OpenAI, stream: bool) -> None:
    reply = "<think>First.\n\nSecond.</think>The answer is 4.\n\nMore."
    answer = said(client, stream, reply, [user("Count.")], stop=["\n\n"]).choices[0]
    assert answer.message.content == "The answer is 4."
    assert answer.message.reasoning_content == "First.\n\nSecond."
    assert answer.finish_reason == "stop"
    reply = '<tool_call>{"name": "look", "arguments": {"at": "a STOP sign"}}</tool_call>'
    answer = said(client, stream, reply, [user("Look.")], stop=["STOP"], tools=[LOOK]).choices[0]
    (call,) = answer.message.tool_calls
    assert json.loads(call.function.arguments) == {"at": "a STOP sign"}
    assert answer.finish_reason == "tool_calls"


def test_usage_comes_only_where_it_is_asked_for(client: OpenAI) -> None:
    for asked in (False, True):
        stream = client.chat.completions.create(
            model="default", messages=[user("Hi.")], stream=True,  # type: ignore[list-item]
            stream_options={"include_usage": asked}, extra_body={"everwarm": {"reply": "Hi."}},
        )  # fmt: skip
        chunks = list(stream)
        assert [bool(c.usage) for c in chunks] == [False] * (len(chunks) - 1) + [asked]
        assert (chunks[-1].choices == []) == asked


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_raised_with_parameter_and_code(client: OpenAI, stream: bool) -> None:
    for more, param, code in (
        ({"temperature": 9}, "temperature", None),
        ({"messages": [user("word " * 5000)]}, "messages", "context_length_exceeded"),
    ):
        with pytest.raises(BadRequestError) as refused:
            list(client.chat.completions.create(
                **{"model": "default", "messages": [user("Hi.")], "stream": stream, **more}
            ))  # type: ignore[call-overload]  # fmt: skip
        assert (refused.value.param, refused.value.code) == (param, code)


def test_a_response_s_refusal_is_raised_with_parameter_and_code(client: OpenAI) -> None:
    for more, param, code in (
        ({"temperature": 9}, "temperature", None),
        ({"input": "word " * 5000}, "input", "context_length_exceeded"),
        ({"previous_response_id": "resp_none"}, "previous_response_id",
         "previous_response_not_found"),
    ):  # fmt: skip
        with pytest.raises(BadRequestError) as refused:
            client.responses.create(**{"model": "default", "input": "Hi.", **more})  # type: ignore[call-overload]
        assert (refused.value.param, refused.value.code) == (param, code)


@contextmanager
def chat(server: Server, text: str) -> Iterator[Any]:
    with (
        OpenAI(base_url=server.root + "/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.create(
            model="default", messages=[user(text)], stream=True,  # type: ignore[list-item]
            extra_body={"everwarm": {"reply": LONG}},
        ) as stream,
    ):  # fmt: skip
        yield stream


@contextmanager
def response(server: Server, text: str) -> Iterator[Any]:
    with (
        OpenAI(base_url=server.root + "/v1", api_key="none", max_retries=0) as client,
        client.responses.create(
            model="default", input=text, stream=True, extra_body={"everwarm": {"reply": LONG}}
        ) as stream,
    ):
        yield stream


@contextmanager
def message(server: Server, text: str) -> Iterator[Any]:
    with (
        Anthropic(base_url=server.root, api_key="none", max_retries=0) as client,
        client.messages.create(
            model="default", max_tokens=2000, messages=[user(text)], stream=True,  # type: ignore[list-item]
            extra_body={"everwarm": {"reply": LONG}},
        ) as stream,
    ):  # fmt: skip
        yield stream


@pytest.mark.parametrize("ask", [chat, response, message])
def test_an_abort_ends_the_turn_and_its_work_is_kept(
    server: Server, ask: Callable[[Server, str], AbstractContextManager[Any]]
) -> None:
    text = f"Tell me all of it, {ask.__name__}. " * 20
    with ask(server, text) as stream:
        assert len(list(islice(stream, 10))) == 10
    while server.call("GET", "/api/ps")[1]["running"]:
        time.sleep(0.02)
    left = server.turn()
    assert left["finish"] == "cancelled" and 0 < left["completion_tokens"] < 400
    with ask(server, text) as again:  # the prompt is read by the tenth event, in every format
        assert len(list(islice(again, 10))) == 10
    while server.call("GET", "/api/ps")[1]["running"]:
        time.sleep(0.02)
    assert server.turn()["prefilled_tokens"] == 1


def test_going_back_to_other_tools_finds_what_was_read_with_them(
    client: OpenAI, server: Server
) -> None:
    other = {"type": "function", "function": {**LOOK["function"], "description": "Plans a look."}}
    messages: list[Any] = [user("Switch the mode. " * 20)]
    for n, tools in enumerate((LOOK, other, LOOK, other)):
        answer = said(client, False, f"Done {n}.", messages, tools=[tools])
        messages += [{"role": "assistant", "content": f"Done {n}."}, user(f"And {n}?")]
        turn = server.turn()
        assert (turn["cached_tokens"] > turn["prompt_tokens"] // 2) == (n > 1)
        assert answer.choices[0].message.content == f"Done {n}."


def test_results_may_come_in_another_order_than_the_calls(client: OpenAI) -> None:
    messages: list[Any] = [user("How are both?")]
    reply = said(client, False, CALLS, messages, tools=[LOOK]).choices[0].message
    messages.append(reply.model_dump(exclude_none=True))
    for call in reversed(reply.tool_calls):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "Fine."})
    answer = said(client, False, "Both are fine.", messages, tools=[LOOK])
    assert answer.usage.prompt_tokens_details.cached_tokens > 0
    assert answer.choices[0].message.content == "Both are fine."
