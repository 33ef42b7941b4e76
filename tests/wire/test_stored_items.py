"""What a request refers to is found, counted once, and listed as OpenAI lists it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sample_turns import FULL, turn

from everwarm.errors import NotFound, RequestError
from everwarm.events import CallDelta, CallEnd, CallStart, Event, ReasoningDelta, TextDelta
from everwarm.messages import Message, Reasoning, Text, ToolCall
from everwarm.server.response_store import ResponseStore
from everwarm.wire.format import Head, ParsedRequest
from everwarm.wire.openai_responses import parse
from everwarm.wire.seals import Seals
from everwarm.wire.stored_items import items_page

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


class Talk:
    """A client and a server that stores what they say; replies are given as events."""

    def __init__(self) -> None:
        self.store = ResponseStore()
        self.n = 0

    def asks(self, given: Any, namespace: str = "", **fields: Any) -> ParsedRequest:
        return parse(json.dumps({"input": given, **fields}).encode(), namespace, self.store)

    def says(self, given: Any, events: list[Event], **fields: Any) -> dict[str, Any]:
        self.n += 1
        asked = self.asks(given, **fields)
        response = asked.encoder(Head(f"resp_{self.n:024}", "tiny", 0)).fold(events)
        assert asked.stored_input is not None
        self.store.put("", response, asked.stored_input)
        return response

    def items(self, response_id: str) -> list[dict[str, Any]]:
        return [json.loads(item.json) for item in self.store.get("", response_id).input]


@pytest.fixture
def talk() -> Talk:
    return Talk()


def ref(item: dict[str, Any]) -> dict[str, str]:
    return {"type": "item_reference", "id": item["id"]}


REPLY = Message(
    "assistant",
    (
        Reasoning("Where is it?"),
        Text("I look."),
        ToolCall("calla", "look", '{"at": "lake"}'),
        ToolCall("callb", "look", "{}"),
    ),
)
HI = Message("user", (Text("hi"),))


@pytest.mark.parametrize("seals", [True, False])
@pytest.mark.parametrize("summary", [None, "auto"])
def test_references_make_the_message_that_the_model_wrote(
    talk: Talk, summary: str | None, seals: bool
) -> None:
    more = {"include": ["reasoning.encrypted_content"]} if seals else {}
    reply = talk.says("hi", FULL, tools=[LOOK], reasoning={"summary": summary}, **more)
    seen = {"type": "function_call_output", "call_id": "calla", "output": "Water."}
    referred = [{"role": "user", "content": "hi"}, *map(ref, reply["output"]), seen]
    sent = [{"role": "user", "content": "hi"}, *reply["output"], seen]
    asked = talk.asks(referred, tools=[LOOK])
    assert asked.request.messages[:2] == (HI, REPLY)
    assert asked.request.messages == talk.asks(sent, tools=[LOOK]).request.messages


def test_a_reference_may_leave_out_its_type(talk: Talk) -> None:
    reply = talk.says("hi", FULL)
    bare = [{"id": reply["output"][1]["id"]}, {"id": reply["output"][0]["id"], "type": None}]
    assert len(talk.asks(bare).request.messages[0].parts) == 2


def test_two_replies_in_a_row_stay_two(talk: Talk) -> None:
    first, second = talk.says("a", turn(TextDelta("1"))), talk.says("b", turn(TextDelta("2")))
    messages = talk.asks([ref(first["output"][0]), ref(second["output"][0])]).request.messages
    assert [m.text for m in messages] == ["1", "2"]


def test_what_a_client_sent_can_be_referred_to_by_the_id_that_is_listed(talk: Talk) -> None:
    reply = talk.says([{"role": "developer", "content": "Be kind."}, HI_ITEM], FULL)
    given = talk.items(reply["id"])
    asked = talk.asks([ref(i) for i in given])
    assert [(m.role, m.text) for m in asked.request.messages] == [
        ("system", "Be kind."),
        ("user", "hi"),
    ]
    assert asked.stored_input == talk.store.get("", reply["id"]).input


HI_ITEM = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("given", "path", "status"),
    [
        ([HI_ITEM, {"type": "item_reference", "id": "msg_nobody"}], "input.1.id", 404),
        ([{"type": "item_reference", "id": ""}], "input.0.id", 400),
        ([{"type": "item_reference", "id": None}], "input.0.id", 400),
        ([{"type": "item_reference", "id": 5}], "input.0.id", 400),
        ([{"type": "item_reference", "id": "x", "role": "user"}], "input.0.id", 404),
    ],
)
def test_a_reference_to_nothing_is_refused_by_its_path(
    talk: Talk, given: Any, path: str, status: int
) -> None:
    with pytest.raises(RequestError) as refused:
        talk.asks(given)
    assert (refused.value.param, refused.value.status) == (path, status)
    assert "msg_nobody" not in refused.value.message


def test_nobody_finds_the_items_of_another_key(talk: Talk) -> None:
    reply = talk.says("hi", FULL)
    with pytest.raises(NotFound):
        talk.asks([ref(reply["output"][0])], namespace="other")
    with pytest.raises(RequestError) as gone:
        talk.asks("on", namespace="other", previous_response_id=reply["id"])
    assert gone.value.code == "previous_response_not_found"


def test_a_short_body_does_not_become_a_long_conversation(talk: Talk) -> None:
    reply = talk.says("hi", turn(TextDelta("word " * 10_000)))
    (said,) = reply["output"]
    with pytest.raises(RequestError) as twice:
        talk.asks([ref(said)] * 1000)
    assert twice.value.param == "input.1.id"
    with pytest.raises(RequestError) as there:
        talk.asks([ref(said)], previous_response_id=reply["id"])
    assert there.value.param == "input.0.id"


def test_a_response_is_continued_with_all_that_came_before(talk: Talk) -> None:
    first = talk.says("hi", FULL, instructions="Be kind.", tools=[LOOK])
    seen = [
        {"type": "function_call_output", "call_id": c, "output": "x"} for c in ("calla", "callb")
    ]
    second = talk.says(seen, turn(TextDelta("So.")), previous_response_id=first["id"])
    asked = talk.asks("And?", previous_response_id=second["id"], instructions="Be brief.")
    assert [m.role for m in asked.request.messages] == [
        "system", "user", "assistant", "tool", "tool", "assistant", "user",
    ]  # fmt: skip
    assert asked.request.messages[0].text == "Be brief."
    assert asked.request.messages[2] == REPLY
    assert len(talk.items(second["id"])) == 1 + 4 + 2


def test_a_call_of_a_custom_tool_and_of_a_namespace_come_back(talk: Talk) -> None:
    tools: list[Any] = [
        {"type": "custom", "name": "note"},
        {"type": "namespace", "name": "places", "tools": [LOOK]},
    ]
    calls: list[Event] = [
        CallStart(0, "calla", "note"), CallDelta(0, '{"input": "a\\nb"}'), CallEnd(0),
        CallStart(1, "callb", "look"), CallDelta(1, "{}"), CallEnd(1),
    ]  # fmt: skip
    reply = talk.says("hi", turn(*calls), tools=tools)
    asked = talk.asks([ref(i) for i in reply["output"]], tools=tools)
    called = asked.request.messages[0].tool_calls
    assert [(c.name, json.loads(c.arguments)) for c in called] == [
        ("note", {"input": "a\nb"}),
        ("look", {}),
    ]


def test_half_a_surrogate_in_a_reply_does_not_lose_it(talk: Talk) -> None:
    lone = [CallStart(0, "calla", "look"), CallDelta(0, '{"at": "\ud800"}'), CallEnd(0)]
    reply = talk.says("hi", turn(ReasoningDelta("\udc00?"), *lone), tools=[LOOK])
    asked = talk.asks([ref(i) for i in reply["output"]], tools=[LOOK])
    assert "\ud800" in asked.request.messages[0].tool_calls[0].arguments
    assert json.loads(talk.store.get("", reply["id"]).json()) == reply


def test_a_conversation_that_is_sent_whole_is_kept_once(talk: Talk) -> None:
    items: list[Any] = []
    for n in range(20):
        items.append({"role": "user", "content": f"{n} " + "long " * 2000})
        reply = talk.says(items, turn(TextDelta(f"reply {n}")))
        items += reply["output"]
    texts = 20 * 10_000
    assert talk.store.nbytes < 2 * texts
    ids = [i["id"] for i in talk.items(reply["id"])]
    assert len(ids) == len(set(ids)) == 39


def test_the_same_words_at_another_place_are_another_item(talk: Talk) -> None:
    twice = talk.says([HI_ITEM, HI_ITEM], FULL)
    first, second = talk.items(twice["id"])
    assert first["id"] != second["id"]
    assert first["content"] == second["content"] == [{"type": "input_text", "text": "hi"}]


def test_items_are_listed_in_openai_s_shape(talk: Talk) -> None:
    given = [
        {"type": "message", "role": "system", "content": "s"},
        {"role": "assistant", "content": "I look."},
        {"type": "reasoning", "id": "rs_mine", "content": "t"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "plain"},
        {"type": "custom_tool_call", "call_id": "d", "name": "note", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "d",
         "output": [{"type": "input_text", "text": "1"}, {"type": "input_text", "text": "2"}]},
    ]  # fmt: skip
    shown = talk.items(talk.says(given, FULL, tools=[LOOK])["id"])
    assert [i["id"].partition("_")[0] for i in shown] == [
        "msg", "msg", "rs", "fc", "fco", "ctc", "ctco",
    ]  # fmt: skip
    assert shown[0]["content"] == [{"type": "input_text", "text": "s"}]
    assert shown[1]["content"] == [{"type": "output_text", "text": "I look.", "annotations": []}]
    assert (shown[2]["id"], shown[2]["summary"], "status" in shown[2]) == ("rs_mine", [], False)
    assert all(i["status"] == "completed" for i in shown if i["type"] != "reasoning")
    assert shown[4]["output"] == "plain"
    assert [p["text"] for p in shown[6]["output"]] == ["1", "2"]


def page(talk: Talk, response_id: str, **params: str) -> dict[str, Any]:
    got: dict[str, Any] = json.loads(
        items_page(talk.store.get("", response_id).input, [*params.items()])
    )
    return got


def test_items_come_in_pages(talk: Talk) -> None:
    many = [{"role": "user", "content": str(n)} for n in range(25)]
    reply = talk.says(many, FULL)

    def texts(found: dict[str, Any]) -> list[str]:
        return [i["content"][0]["text"] for i in found["data"]]

    newest = page(talk, reply["id"])
    assert texts(newest) == [str(n) for n in range(24, 4, -1)]
    assert newest["has_more"] and newest["object"] == "list"
    assert newest["first_id"] == newest["data"][0]["id"]
    rest = page(talk, reply["id"], after=newest["last_id"])
    assert texts(rest) == ["4", "3", "2", "1", "0"] and not rest["has_more"]
    oldest = page(
        talk, reply["id"], order="asc", limit="3", include="message.input_image.image_url"
    )
    assert texts(oldest) == ["0", "1", "2"]
    assert texts(page(talk, reply["id"], order="asc", limit="3", after=oldest["last_id"])) == [
        "3", "4", "5",
    ]  # fmt: skip
    end = page(talk, reply["id"], order="asc", after=newest["first_id"])
    assert (end["data"], end["first_id"], end["last_id"]) == ([], None, None)


@pytest.mark.parametrize("summary", [None, "auto"])
def test_reasoning_is_sealed_when_it_is_asked_for_later(talk: Talk, summary: str | None) -> None:
    reply = talk.says("hi", FULL, reasoning={"summary": summary})
    assert "encrypted_content" not in reply["output"][0]
    later = talk.says([*map(ref, reply["output"])], FULL)
    sealed = page(talk, later["id"], order="asc", include="reasoning.encrypted_content")["data"][0]
    assert Seals().unseal(sealed["encrypted_content"]) == "Where is it?"
    stored = talk.store.get("", reply["id"])
    whole = json.loads(stored.json({"reasoning.encrypted_content"}))
    assert whole["output"] == [sealed, *reply["output"][1:]]
    assert json.loads(stored.json({"file_search_call.results"})) == reply


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "msg_nobody"}, "after"),
        ({"before": "msg_x"}, "before"),
    ],
)
def test_a_wrong_page_is_refused_by_name(talk: Talk, params: Any, param: str) -> None:
    reply = talk.says("hi", FULL)
    with pytest.raises(RequestError) as refused:
        page(talk, reply["id"], **params)
    assert refused.value.param == param
