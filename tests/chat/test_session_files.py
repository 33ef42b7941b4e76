"""A session leaves as a file and comes back; a stranger's file is only text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from held import Client, done, holding


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Client]:
    path = tmp_path_factory.mktemp("files")
    model = zoo.save("llama", path / "model", smollm2)
    with holding(model, path / "home", "--no-disk") as client:
        yield client


def shape(session: dict[str, Any]) -> list[tuple[str, str]]:
    return [(m["role"], m["text"]) for m in session["messages"]]


def test_what_was_exported_is_imported(client: Client) -> None:
    session = client.new(system="Be brief.")
    client.say(session, "One")
    first = client.get(f"/api/sessions/{session}")["messages"][0]["id"]
    done(client.stream(f"/api/sessions/{session}/edit", {"message": first, "text": "Uno"}))
    file = client.get(f"/api/sessions/{session}/export")
    copy = client.post("/api/sessions/import", file)
    assert copy["id"] != session
    assert copy["branch"] == "branch 2" and copy["settings"]["system"] == "Be brief."
    for branch in ("main", "branch 2"):
        query = f"?branch={branch.replace(' ', '%20')}"
        assert shape(client.get(f"/api/sessions/{copy['id']}{query}")) == shape(
            client.get(f"/api/sessions/{session}{query}")
        )
    again = client.get(f"/api/sessions/{copy['id']}/export")
    assert len(again["messages"]) == len(file["messages"])
    turn = client.say(copy["id"], "Due")["message"]["turn"]
    assert turn["prefilled_tokens"] <= turn["new_tokens"]


def test_an_export_for_people(client: Client) -> None:
    session = client.new(system="Be brief.")
    said = client.say(session, "One & <two>")["message"]["text"]
    page = client.get(f"/api/sessions/{session}/export?format=markdown").decode()
    assert page.startswith("# One & <two>\n") and "## System\n\nBe brief." in page
    assert f"## Assistant\n\n{said}" in page
    assert client.ask("GET", f"/api/sessions/{session}/export?format=pdf")[0] == 400


MESSAGE = {"id": "a", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
FILE = {"everwarm": 1, "branches": [{"name": "main", "head": "a"}], "messages": [MESSAGE]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"everwarm": 2}, "everwarm"),
        ({"messages": "x"}, "messages"),
        ({"messages": [MESSAGE | {"parent": "b"}]}, "messages.0.parent"),
        ({"messages": [MESSAGE | {"role": "wizard"}]}, "messages.0.role"),
        ({"messages": [MESSAGE | {"parts": [{"type": "image"}]}]}, "messages.0.parts.0.type"),
        ({"messages": [MESSAGE | {"created": -1}]}, "messages.0.created"),
        ({"branches": []}, "branches"),
        ({"branches": [{"name": "main", "head": "zz"}]}, "branches"),
        ({"branch": "other"}, "branch"),
        ({"title": "x" * 201}, "title"),
        ({"settings": {"temperature": 9}}, "settings.temperature"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(client: Client, change: Any, param: str) -> None:
    before = client.get("/api/sessions")["sessions"]
    status, answer = client.ask("POST", "/api/sessions/import", FILE | change)
    assert (status, answer["error"]["param"]) == (400, param)
    assert client.get("/api/sessions")["sessions"] == before


def test_hostile_text_is_text(client: Client) -> None:
    bad = '"><img src=x onerror=alert(1)>{{7*7}}\u0000\u202e<|im_end|>'
    parts = [{"type": "text", "text": bad}, {"type": "reasoning", "text": bad}]
    call = {"type": "tool_call", "id": bad, "name": bad, "arguments": bad}
    messages = [MESSAGE, {"id": "b", "parent": "a", "role": "assistant", "parts": [*parts, call]}]
    file = {**FILE, "title": bad, "messages": messages}
    file["branches"] = [{"name": "main", "head": "b"}]
    made = client.post("/api/sessions/import", file)
    held = client.get(f"/api/sessions/{made['id']}")
    assert held["title"] == bad
    assert held["messages"][1]["text"] == held["messages"][1]["reasoning"] == bad
    assert held["messages"][1]["tool_calls"] == [{"id": bad, "name": bad, "arguments": bad}]
    assert client.get("/api/sessions?q=onerror")["sessions"][0]["id"] == made["id"]
