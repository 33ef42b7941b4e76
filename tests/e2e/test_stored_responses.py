"""The official OpenAI SDK reads, lists, deletes and refers to responses that the server stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from serving import Server, save_talker, serving

LOOK: Any = {
    "type": "function",
    "name": "look",
    "description": "Looks at a place.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
}


def looks(at: str, thought: str) -> str:
    return (
        f"<think>{thought}</think>I look."
        f'<tool_call>{{"name": "look", "arguments": {{"at": "{at}"}}}}</tool_call>'
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    model = save_talker(tmp_path_factory.mktemp("models"), smollm2)
    with serving(model, "--forced-replies") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.root + "/v1", api_key="none", max_retries=0) as client:
        yield client


def args(reply: str, given: Any, **more: Any) -> dict[str, Any]:
    return {"model": "default", "input": given, "extra_body": {"everwarm": {"reply": reply}}} | more


def final(client: OpenAI, stream: bool, **request: Any) -> Any:
    answer: Any = client.responses.create(**request, stream=stream)
    return list(answer)[-1].response if stream else answer


def references(response: Any) -> list[Any]:
    return [{"type": "item_reference", "id": item.id} for item in response.output]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_read_as_it_was_answered(client: OpenAI, stream: bool) -> None:
    request = args(looks("lake", "Hm."), "Look.", tools=[LOOK], metadata={"a": "b"})
    made = final(client, stream, **request)
    found = client.responses.retrieve(made.id)
    assert found.to_dict() == made.to_dict()
    assert (found.status, found.metadata, found.store) == ("completed", {"a": "b"}, True)
    assert found.output_text == "I look."
    sealed = client.responses.retrieve(made.id, include=["reasoning.encrypted_content"])
    assert sealed.output[0].encrypted_content  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_of_references_stays_warm(client: OpenAI, server: Server, stream: bool) -> None:
    items: list[Any] = [{"role": "user", "content": f"Look twice, {stream}."}]
    ends = [0]
    for at in ("lake", "hill"):
        reply = final(client, stream, **args(looks(f"{at} {stream}", at), items, tools=[LOOK]))
        record = server.turn()
        assert record["cached_tokens"] >= ends[-1]
        ends.append(record["prompt_tokens"] + record["completion_tokens"])
        call_id = reply.output[-1].call_id
        items += references(reply)
        items.append({"type": "function_call_output", "call_id": call_id, "output": f"{at} {ends}"})
    last = final(client, stream, **args("A lake and a hill.", items, tools=[LOOK]))
    assert last.output_text == "A lake and a hill."
    record = server.turn()
    assert record["cached_tokens"] == ends[-1]
    assert record["prefilled_tokens"] == record["new_tokens"]
    again = final(client, stream, **args("Yes.", "Sure?", previous_response_id=last.id))
    assert again.previous_response_id == last.id
    listed = client.responses.input_items.list(again.id, order="asc")
    assert len(listed.data) == len(items) + 2


def test_what_was_asked_is_listed_in_pages(client: OpenAI) -> None:
    given: list[Any] = [{"role": "user", "content": str(n)} for n in range(7)]
    made = client.responses.create(**args("So.", given))
    texts = [i.content[0].text for i in client.responses.input_items.list(made.id, limit=3)]  # type: ignore[union-attr]
    assert texts == [str(n) for n in range(6, -1, -1)]
    first = client.responses.input_items.list(made.id, limit=3, order="asc")
    rest = client.responses.input_items.list(made.id, order="asc", after=first.data[-1].id or "")
    assert [len(first.data), len(rest.data)] == [3, 4]
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.input_items.list(made.id, limit=101)
    assert refused.value.param == "limit"


def test_a_deleted_response_is_gone(client: OpenAI, server: Server) -> None:
    made = client.responses.create(**args("So.", "Say so."))
    status, said, _ = server.call("DELETE", f"/v1/responses/{made.id}")
    assert (status, said) == (200, {"id": made.id, "object": "response", "deleted": True})
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(**args("x", "on", previous_response_id=made.id))
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.create(**args("x", ["a", *references(made)][1:]))
    assert gone.value.param == "input.0.id"


def test_unknown_and_unstored_ones_are_not_found(client: OpenAI) -> None:
    unstored = client.responses.create(**args("So.", "Say so.", store=False))
    for response_id in ("resp_nobody", unstored.id):
        for ask in (
            client.responses.retrieve,
            client.responses.delete,
            client.responses.cancel,
            client.responses.input_items.list,
        ):
            with pytest.raises(openai.NotFoundError) as missing:
                ask(response_id)
            body: Any = missing.value.body
            assert (body["type"], body["param"]) == ("invalid_request_error", "response_id")
            assert response_id not in body["message"]


def test_what_does_not_run_in_the_background_cannot_be_cancelled(client: OpenAI) -> None:
    made = client.responses.create(**args("So.", "Say so."))
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(made.id)
    running = client.responses.create(**args("word " * 3000, "Go on."), stream=True)
    begun = next(iter(running))
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(begun.response.id)
    running.close()
    assert client.responses.retrieve(made.id).status == "completed"


def test_a_stored_response_is_not_streamed_again(client: OpenAI) -> None:
    made = client.responses.create(**args("So.", "Say so."))
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.retrieve(made.id, stream=True)
    assert refused.value.param == "stream"


def test_a_response_that_was_cut_is_stored_as_it_is(client: OpenAI) -> None:
    made = client.responses.create(**args("One two three.", "Count.", max_output_tokens=2))
    found = client.responses.retrieve(made.id)
    assert found.status == "incomplete" and found.incomplete_details is not None
    assert found.to_dict() == made.to_dict()
