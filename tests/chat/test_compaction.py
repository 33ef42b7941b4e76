"""A long conversation goes on from its summary; nothing of it is lost, nor read again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from held import Client, done, holding

SYSTEM = "You answer in few words. " * 20


@pytest.fixture(scope="module", params=["llama", "qwen3_5"])
def client(
    request: Any, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[Client]:
    path = tmp_path_factory.mktemp("compaction")
    model = zoo.save(request.param, path / "model", smollm2)
    with holding(model, path / "home", "--no-disk", "--context-length", "2048") as client:
        yield client


def test_thirty_turns_are_summed_up_and_the_summary_is_undone(client: Client) -> None:
    session = client.new(system=SYSTEM)
    for n in range(30):
        client.say(session, f"Question {n}?")
    before = client.get(f"/api/sessions/{session}")
    summed = done(client.stream(f"/api/sessions/{session}/compact"))
    summary = summed["message"]
    assert summary["role"] == "summary"
    assert summary["turn"]["prefilled_tokens"] <= summary["turn"]["new_tokens"]
    assert summed["session"]["compacted"]
    assert summed["session"]["context"]["used"] < before["context"]["used"]
    turn = client.say(session, "Go on.")["message"]["turn"]
    after = client.get(f"/api/sessions/{session}")
    assert [m["role"] for m in after["messages"]] == ["summary", "user", "assistant"]
    assert turn["prompt_tokens"] - turn["cached_tokens"] <= turn["new_tokens"] + 8
    assert turn["prefilled_tokens"] < 80 < turn["cached_tokens"]
    old = client.get(f"/api/sessions/{session}?branch=main")
    assert old["messages"] == before["messages"]
    back = client.post(f"/api/sessions/{session}/uncompact")
    assert back["messages"] == before["messages"] and not back["compacted"]
    turn = client.say(session, "And now?")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"]


def filled(client: Client, n_turns: int, **settings: Any) -> tuple[str, dict[str, Any]]:
    """A session that the next turn brings over its own limit; how it was settled."""
    session = client.new(system=SYSTEM, **settings)
    for n in range(n_turns):
        client.say(session, f"Matter {n}?")
    now = client.get(f"/api/sessions/{session}")
    part = (now["context"]["used"] + 1) / now["context"]["limit"]
    chosen = now["settings"] | {"compact_at": part}
    client.ask("PATCH", f"/api/sessions/{session}", {"settings": chosen})
    return session, now


def test_a_full_session_is_summed_up_unasked(client: Client) -> None:
    session, before = filled(client, 29)
    assert not before["running"] and len(before["messages"]) == 58
    last = client.say(session, "Matter 29?")["session"]
    whole = client.get(f"/api/sessions/{session}?branch=main")["messages"]
    if last["running"]:  # else it is done already
        client.ask("GET", f"/api/sessions/{session}/stream")
    after = client.get(f"/api/sessions/{session}")
    assert after["compacted"] and after["branch"] == "compacted"
    (summary,) = after["messages"]
    assert summary["role"] == "summary" and summary["covers"] == whole[-1]["id"]
    assert summary["turn"]["prefilled_tokens"] <= summary["turn"]["new_tokens"]
    turn = client.say(session, "Go on.")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"] + 8
    assert turn["prefilled_tokens"] < 80 < turn["cached_tokens"]
    assert client.get(f"/api/sessions/{session}?branch=main")["messages"] == whole
    back = client.post(f"/api/sessions/{session}/uncompact")
    assert back["messages"] == whole
    said = client.say(session, "And now?")
    assert said["message"]["turn"]["prefilled_tokens"] <= said["message"]["turn"]["new_tokens"]
    assert said["session"]["running"] is None, "who undid a summary is not given another"


def test_a_session_may_never_be_summed_up(client: Client) -> None:
    session, _ = filled(client, 2)
    settings = client.get(f"/api/sessions/{session}")["settings"] | {"compact_at": 1}
    client.ask("PATCH", f"/api/sessions/{session}", {"settings": settings})
    assert client.say(session, "Go on.")["session"]["running"] is None
    status, refused = client.ask(
        "PATCH", f"/api/sessions/{session}", {"settings": {"compact_at": 0}}
    )
    assert (status, refused["error"]["param"]) == (400, "settings.compact_at")


def test_a_session_is_deleted_while_it_is_summed_up(client: Client) -> None:
    session, _ = filled(client, 2)
    client.say(session, "Go on.")
    assert client.ask("DELETE", f"/api/sessions/{session}")[0] == 200
    assert client.ask("GET", f"/api/sessions/{session}")[0] == 404


def test_there_must_be_something_to_sum_up_or_to_undo(client: Client) -> None:
    session = client.new()
    assert client.ask("POST", f"/api/sessions/{session}/compact", {})[0] == 400
    assert client.ask("POST", f"/api/sessions/{session}/uncompact", {})[0] == 400


def prepared(client: Client, session: str) -> None:
    while (state := client.post(f"/api/sessions/{session}/prepare")["state"]) != "ready":
        assert state == "reading"


def test_what_fills_the_context_is_not_read_ahead(client: Client) -> None:
    """No turn of it could be answered: to read it would only take others' room and time."""
    asked = {"id": "a", "role": "user", "parts": [{"type": "text", "text": "hello world " * 3000}]}
    said = {
        "id": "b",
        "parent": "a",
        "role": "assistant",
        "parts": [{"type": "text", "text": "ok"}],
    }
    session = client.post(
        "/api/sessions/import",
        {
            "everwarm": 1,
            "branches": [{"name": "main", "head": "b"}],
            "messages": [asked, said],
        },
    )["id"]
    before = client.get("/api/ps")["engine"]
    assert client.post(f"/api/sessions/{session}/prepare") == {"state": "too_long"}
    after = client.get("/api/ps")["engine"]
    assert (after["jobs"], after["tree_tokens"]) == (0, before["tree_tokens"])


def test_what_will_be_read_is_read_ahead(client: Client) -> None:
    session = client.new(system="Another system prompt, " + "of many words " * 40)
    prepared(client, session)
    turn = client.say(session, "Hello")["message"]["turn"]
    assert turn["prefilled_tokens"] < 20 < turn["cached_tokens"]
    prepared(client, session)
    turn = client.say(session, "Good bye")["message"]["turn"]
    assert turn["prefilled_tokens"] < turn["new_tokens"]
