"""Conversations that clients hold through the APIs are sessions too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from held import Client, holding


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return zoo.save("llama", tmp_path_factory.mktemp("models") / "model", smollm2)


@pytest.fixture
def client(model: Path, tmp_path: Path) -> Iterator[Client]:
    with holding(model, tmp_path / "home", "--no-disk") as client:
        yield client


def chat(client: Client, *said: str, system: str = "Be brief.", **headers: str) -> str:
    """What is answered to messages of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": "system", "content": system}]
    messages += [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    body = {"messages": messages, "max_tokens": 5, "temperature": 0}
    status, answer = client.ask("POST", "/v1/chat/completions", body, **headers)
    assert status == 200
    return str(answer["choices"][0]["message"]["content"])


def sessions(client: Client) -> list[dict[str, Any]]:
    found = client.get("/api/sessions")["sessions"]
    return [client.get(f"/api/sessions/{s['id']}") for s in found]


def recorded(client: Client, n_turns: int) -> list[dict[str, Any]]:
    """The sessions once so many turns are written, which is behind the replies."""
    while True:
        trees = [
            client.get(f"/api/sessions/{s['id']}/tree")["messages"]
            for s in client.get("/api/sessions")["sessions"]
        ]
        if sum(m["role"] == "assistant" for t in trees for m in t) >= n_turns:
            return sessions(client)
        time.sleep(0.01)


def test_a_conversation_is_one_session_and_can_be_gone_on_with(client: Client) -> None:
    first = chat(client, "Hello there", User_Agent="opencode/1.0 (x)")
    second = chat(client, "Hello there", first, "And now?", system="Be brief. It is Tuesday.")
    (held,) = recorded(client, 2)
    assert held["origin"] == "api"
    assert held["title"] == "Hello there"
    assert held["settings"]["system"] == "Be brief. It is Tuesday."
    assert [m["text"] for m in held["messages"]] == ["Hello there", first, "And now?", second]
    assert held["messages"][-1]["turn"]["prefilled_tokens"] > 0
    settings = held["settings"] | {"max_tokens": 5}
    client.ask("PATCH", f"/api/sessions/{held['id']}", {"settings": settings})
    turn = client.say(held["id"], "Here I am.")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"]


def test_samples_are_branches_of_one_session(client: Client) -> None:
    body = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 5}
    body |= {"n": 3, "seed": 4, "temperature": 1.0, "stream": False}
    status, answer = client.ask("POST", "/v1/chat/completions", body)
    assert status == 200
    said = {c["message"]["content"] for c in answer["choices"]}
    assert len(said) == 3
    (held,) = recorded(client, 3)
    tree = client.get(f"/api/sessions/{held['id']}/tree")["messages"]
    assert {m["title"] for m in tree if m["role"] == "assistant"} == {t[:80] for t in said}
    assert [m["title"] for m in tree if m["role"] == "user"] == ["Hello there"]


def test_a_client_names_its_conversation_and_asks_beside_it(client: Client) -> None:
    name = {"X-Claude-Code-Session-Id": "0af3"}
    chat(client, "Write a title for this", **name)
    first = chat(client, "<system-reminder>x</system-reminder>Fix the bug", **name)
    chat(client, "<system-reminder>x</system-reminder>Fix the bug", first, "More", **name)
    chat(client, "Write a title for this", **name)
    chat(client, "Is this a topic?", **name)
    (held,) = recorded(client, 4)
    assert held["title"] == "Fix the bug"
    assert [m["text"] for m in held["messages"]][-2] == "More"
    assert [b["name"] for b in held["branches"]] == ["main", "side"]


def test_a_reminder_that_stays_makes_no_branch(client: Client) -> None:
    """The session has what was read, and goes on from it without reading anything again."""
    sticky = {"X-Everwarm-Sticky-Reminders": "true"}
    reminder = "<system-reminder>Only plan.</system-reminder>"
    hello = chat(client, "Hello there", **sticky)
    first = chat(client, "Hello there", hello, f"Look{reminder}", **sticky)
    second = chat(client, "Hello there", hello, "Look", first, f"And now?{reminder}", **sticky)
    third = chat(client, "Hello there", hello, "Look", first, "And now?", second, "On", **sticky)
    (held,) = recorded(client, 4)
    said = ["Hello there", hello, f"Look{reminder}", first, f"And now?{reminder}", second]
    assert [m["text"] for m in held["messages"]] == [*said, "On", third]
    assert len(client.get(f"/api/sessions/{held['id']}/tree")["messages"]) == 8
    turns = client.get("/api/turns")["turns"]
    assert [t["sticky_reminders"] for t in turns] == [2, 1, 0, 0]
    assert [t["again"] for t in turns] == [0, 0, 0, 0]
    settings = held["settings"] | {"max_tokens": 5}
    client.ask("PATCH", f"/api/sessions/{held['id']}", {"settings": settings})
    turn = client.say(held["id"], "Here I am.")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"]


def test_names_come_from_headers_or_the_body(client: Client) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    for more, headers in (
        ({"prompt_cache_key": "k"}, {}),
        ({}, {"X-Session-Id": "k"}),
        ({"prompt_cache_key": {"odd": 1}}, {"X-Session-Id": "k"}),
    ):
        body = {"messages": messages, "max_tokens": 2} | more
        assert client.ask("POST", "/v1/chat/completions", body, **headers)[0] == 200
    body = {"input": "Hi", "max_output_tokens": 2, "prompt_cache_key": "k"}
    assert client.ask("POST", "/v1/responses", body)[0] == 200
    assert len(recorded(client, 1)) == 1


def test_nothing_is_recorded_where_that_is_not_wanted(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with holding(model, home, "--no-disk", "--no-record", "--no-remember") as client:
        chat(client, "Between us")
        assert not (home / "history.db").exists()
        assert sessions(client) == []
        assert client.say(client.new(), "Keep this")["message"]["finish"] == "length"


def test_a_deleted_one_is_gone(client: Client, tmp_path: Path) -> None:
    chat(client, "The word is plover")
    (held,) = recorded(client, 1)
    assert client.ask("DELETE", f"/api/sessions/{held['id']}")[0] == 200
    assert all(b"plover" not in p.read_bytes() for p in (tmp_path / "home").glob("history.db*"))
    chat(client, "Another one")
    assert len(recorded(client, 1)) == 1
