"""Sessions over HTTP, with a tiny model behind them: what is said is kept, and never read twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from held import Client, done, holding


@pytest.fixture(scope="module", params=["llama", "qwen3_5"])
def client(
    request: Any, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[Client]:
    path = tmp_path_factory.mktemp("sessions")
    model = zoo.save(request.param, path / "model", smollm2)
    with holding(model, path / "home", "--no-disk", "--context-length", "4096") as client:
        yield client


def texts(session: dict[str, Any]) -> list[str]:
    return [m["text"] for m in session["messages"]]


def ids(session: dict[str, Any]) -> list[str]:
    return [m["id"] for m in session["messages"]]


def test_a_turn_is_kept_and_told(client: Client) -> None:
    session = client.new()
    events = client.stream(f"/api/sessions/{session}/send", {"text": "Tell me of lakes."})
    names = [name for name, _ in events]
    assert names[0] == "start" and "progress" in names and names[-1] == "done"
    said = "".join(data["text"] for name, data in events if name == "text")
    last = done(events)
    assert last["message"]["text"] == said
    held = client.get(f"/api/sessions/{session}")
    assert texts(held) == ["Tell me of lakes.", said]
    assert held["title"] == "Tell me of lakes."
    assert held["messages"][1]["turn"]["id"] == events[0][1]["turn"]
    assert held["messages"][1]["finish"] == "length"
    turn = held["messages"][1]["turn"]
    assert held["context"]["used"] == turn["prompt_tokens"] + turn["completion_tokens"]


def test_only_what_is_new_is_read(client: Client) -> None:
    session = client.new(system="You are brief. " * 30)
    client.say(session, "One " * 50)
    turn = client.say(session, "Two")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"] < 20 < turn["cached_tokens"]


def test_a_reply_made_anew_stands_beside_the_old_one(client: Client) -> None:
    session = client.new(temperature=1.0)
    first = client.say(session, "Say something. " * 20)["message"]
    second = done(client.stream(f"/api/sessions/{session}/regenerate"))["message"]
    assert second["parent"] == first["parent"]
    assert second["id"] != first["id"]
    assert second["siblings"] == [first["id"], second["id"]]
    read, miss = second["turn"]["prefilled_tokens"], second["turn"]["miss"]
    assert read <= 8
    if client.get("/api/dashboard")["memory"]["checkpoints"]:  # layers that cannot be cut
        again = f"{read - 1} tokens behind the nearest checkpoint"
        assert miss["part"] == "scaffold" and again in miss["cause"]
    else:
        assert read == 1 and miss is None
    listed = [m["turn"] for m in client.get("/api/dashboard")["misses"]]
    assert second["turn"]["id"] not in listed
    held = client.post(f"/api/sessions/{session}/select", {"message": first["id"]})
    assert held["messages"][-1]["id"] == first["id"]


def test_an_edit_makes_a_branch_and_both_stay_warm(client: Client) -> None:
    session = client.new(system="You know the sea. " * 30)
    client.say(session, "The first question.")
    client.say(session, "The second question, " + "with many words " * 20)
    old = client.get(f"/api/sessions/{session}")
    edited = done(
        client.stream(
            f"/api/sessions/{session}/edit", {"message": ids(old)[0], "text": "Another start."}
        )
    )
    assert edited["message"]["turn"]["prefilled_tokens"] < 40
    assert [b["name"] for b in edited["session"]["branches"]] == ["main", "branch 2"]
    assert edited["session"]["branch"] == "branch 2"
    back = client.ask("PATCH", f"/api/sessions/{session}", {"branch": "main"})[1]
    assert back["branch"] == "main"
    assert ids(client.get(f"/api/sessions/{session}")) == ids(old)
    for branch in ("main", "branch 2", "main"):
        client.ask("PATCH", f"/api/sessions/{session}", {"branch": branch})
        turn = client.say(session, f"On {branch}.")["message"]["turn"]
        assert turn["prefilled_tokens"] <= turn["new_tokens"]


def test_a_branch_begins_at_any_message(client: Client) -> None:
    session = client.new()
    first = client.say(session, "Alpha")["message"]
    client.say(session, "Beta")
    branched = client.post(
        f"/api/sessions/{session}/branches", {"at": first["id"], "name": "aside"}
    )
    assert ids(branched)[-1] == first["id"]
    turn = client.say(session, "Gamma")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"]
    tree = client.get(f"/api/sessions/{session}/tree")
    assert len(tree["messages"]) == 6
    status, refused = client.ask(
        "POST", f"/api/sessions/{session}/branches", {"at": first["id"], "name": "aside"}
    )
    assert (status, refused["error"]["param"]) == (409, "name")


def test_undo_takes_the_last_turn_back(client: Client) -> None:
    session = client.new()
    client.say(session, "Stay")
    before = client.get(f"/api/sessions/{session}")
    client.say(session, "Go")
    after = client.post(f"/api/sessions/{session}/undo")
    assert ids(after) == ids(before)
    assert len(client.get(f"/api/sessions/{session}/tree")["messages"]) == 2
    turn = client.say(session, "Once more")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"]
    client.post(f"/api/sessions/{session}/undo")
    client.post(f"/api/sessions/{session}/undo")
    assert client.ask("POST", f"/api/sessions/{session}/undo", {})[0] == 400


def test_a_turn_outlives_its_connection_and_stops_on_request(client: Client) -> None:
    session = client.new(max_tokens=2000)
    heard: list[Any] = []
    thread = threading.Thread(
        target=lambda: heard.extend(
            client.stream(f"/api/sessions/{session}/send", {"text": "Go on and on."})
        )
    )
    thread.start()
    while client.get(f"/api/sessions/{session}")["running"] is None:
        pass
    status, refused = client.ask("POST", f"/api/sessions/{session}/send", {"text": "And me?"})
    assert (status, refused["error"]["code"]) == (409, "session_busy")
    followed: list[Any] = []
    second = threading.Thread(
        target=lambda: followed.extend(
            client_events(client, session),
        )
    )
    second.start()
    while not followed_started(client, session):
        pass
    assert client.post(f"/api/sessions/{session}/stop") == {"stopped": True}
    thread.join()
    second.join()
    assert heard == followed
    assert heard[-1][0] == "done"
    assert client.post(f"/api/sessions/{session}/stop") == {"stopped": False}
    assert client.ask("GET", f"/api/sessions/{session}/stream")[0] == 404
    held = client.get(f"/api/sessions/{session}")
    assert held["messages"][-1]["finish"] == "cancelled"
    turn = client.say(session, "Thank you.")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"]


def client_events(client: Client, session: str) -> Any:
    from serving import sse

    return sse(client.get(f"/api/sessions/{session}/stream"))


def followed_started(client: Client, session: str) -> bool:
    running = client.get("/api/ps")["running"]
    return bool(running) and running[0]["completion"] > 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("GET", "/api/sessions/nobody", None, 404, "session"),
        ("POST", "/api/sessions/nobody/send", {"text": "x"}, 404, "session"),
        ("POST", "/api/sessions/nobody/stop", {}, 404, "session"),
        ("GET", "/api/sessions/nobody/stream", None, 404, "session"),
        ("PATCH", "/api/sessions/nobody", {"pinned": True}, 404, "session"),
        ("DELETE", "/api/sessions/nobody", None, 404, "session"),
        *[
            ("GET", f"/api/sessions/nobody/{what}", None, 404, "session")
            for what in ("tree", "export")
        ],
        *[
            ("POST", f"/api/sessions/nobody/{what}", body, 404, "session")
            for what, body in {
                "regenerate": {},
                "continue": {},
                "edit": {"message": "x", "text": "x"},
                "branches": {"at": "x"},
                "select": {"message": "x"},
                "undo": {},
                "prepare": {},
                "compact": {},
                "uncompact": {},
            }.items()
        ],
        ("POST", "/api/sessions", {"settings": {"temperature": "hot"}}, 400, "settings.temper"),
        (
            "POST",
            "/api/sessions",
            {"settings": {"thinking_budget": -5}},
            400,
            "settings.thinking_b",
        ),
        ("POST", "/api/turns/nothing/cancel", {}, 404, "id"),
        ("POST", "/api/sessions", {"titel": "x"}, 400, "titel"),
        ("POST", "/api/sessions/{id}/send", {"text": ""}, 400, "text"),
        ("POST", "/api/sessions/{id}/send", {}, 400, "text"),
        ("POST", "/api/sessions/{id}/send", {"text": "x", "parent": "none"}, 404, "parent"),
        ("POST", "/api/sessions/{id}/edit", {"message": "x", "text": "x"}, 404, "message"),
        ("POST", "/api/sessions/{id}/regenerate", {}, 400, None),
        ("POST", "/api/sessions/{id}/select", {"message": "x"}, 404, "message"),
        ("PATCH", "/api/sessions/{id}", {"branch": "none"}, 404, "branch"),
        ("GET", "/api/sessions/{id}?branch=none", None, 404, "branch"),
        ("GET", "/api/sessions?limit=0", None, 400, "limit"),
        ("GET", "/api/sessions?sort=x", None, 400, "sort"),
        ("POST", "/api/sessions/{id}/send", b"[]", 400, None),
    ],
)
def test_refusal_names_what_is_wrong(
    client: Client, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    path = path.replace("{id}", client.new())
    got, answer = client.ask(method, path, body)
    assert got == status
    assert param is None or str(answer["error"]["param"]).startswith(param)


def test_a_message_that_is_refused_was_never_there(client: Client) -> None:
    session = client.new()
    client.say(session, "Short")
    before = client.get(f"/api/sessions/{session}")
    long = client.stream(f"/api/sessions/{session}/send", {"text": "long " * 5_000})
    assert long[-1][0] == "error"
    assert long[-1][1]["error"]["code"] == "context_length_exceeded"
    assert ids(client.get(f"/api/sessions/{session}")) == ids(before)


def test_sessions_are_listed_searched_renamed_and_pinned(client: Client) -> None:
    client.new()
    session = client.new()
    client.say(session, "Where does the kingfisher zqnest? <script>alert(1)</script>")
    client.say(session, "Thanks")
    client.ask("PATCH", f"/api/sessions/{session}", {"title": "Xqbirds", "pinned": True})
    other = client.new()
    listed = client.get("/api/sessions?limit=2")
    assert [s["id"] for s in listed["sessions"]] == [session, other]
    assert listed["more"]
    for words in (
        "kingf",
        "kingfisher zqnest",
        "xqbirds",
        '"kingfisher',
        "kingfisher?",
        "%00zqnest%00",
    ):
        found = client.get("/api/sessions?q=" + words.replace(" ", "%20").replace('"', "%22"))
        assert [s["id"] for s in found["sessions"]] == [session]
    assert "kingfisher" in client.get("/api/sessions?q=script%20alert")["sessions"][0]["snippet"]
    for nothing in ("kingfishers%20OR", "%00"):
        assert client.get(f"/api/sessions?q={nothing}")["sessions"] == []
