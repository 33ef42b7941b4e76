"""160 hostile texts through every way in: none runs, and the content policy has nothing to stop.

They come by import, by what a person types, by a reply as it is streamed, by titles, by errors and
by the log. Foreign addresses are never asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from browsing import browsing, calm, running
from payloads import PAYLOADS
from serving import Server

ALL = "\n\n".join(PAYLOADS)
SHOWN = "<img src=x onerror=pwn(0)>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("hostile")
    with running(zoo.save("llama", path / "model", smollm2), path / "home") as server:
        yield server


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Any]:
    with browsing() as page:
        page.asked = []
        page.on("request", lambda r: page.asked.append(r.url))
        page.goto(server.root)
        page.wait_for_selector(".empty h1")
        yield page
        assert [u for u in page.asked if not u.startswith((server.root, "blob:", "data:"))] == []


def message(n: int, role: str, parts: list[dict[str, str]]) -> dict[str, Any]:
    parent = f"m{n - 1}" if n else None
    return {"id": f"m{n}", "parent": parent, "role": role, "parts": parts}


def hostile_file() -> dict[str, Any]:
    """A conversation in which everything is hostile."""
    messages = []
    for n, text in enumerate(PAYLOADS):
        parts = [
            {"type": "reasoning", "text": text},
            {"type": "text", "text": text},
            {"type": "tool_call", "id": f"c{n}", "name": text[:256], "arguments": text},
        ]
        messages.append(message(3 * n, "user", [{"type": "text", "text": text}]))
        messages.append(message(3 * n + 1, "assistant", parts))
        messages.append(message(3 * n + 2, "tool", [{"type": "text", "text": text}]))
    branches = [{"name": SHOWN, "head": messages[-1]["id"]}, {"name": "x", "head": "m0"}]
    return {
        "everwarm": 1, "title": SHOWN, "branch": SHOWN, "branches": branches, "messages": messages,
        "settings": {"system": PAYLOADS[0]},
    }  # fmt: skip


def open_all(page: Any) -> None:
    """Unfold everything, so that hidden text is rendered too."""
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.wait_for_function("() => !document.querySelector('.maths:not([role]):not(.raw)')")
    page.evaluate("document.querySelectorAll('main *').forEach((e) => e.focus?.())")


def hostile_elements(page: Any) -> list[str]:
    """Elements and attributes that no rendered message may have."""
    found: list[str] = page.evaluate("""() => [...document.querySelectorAll('.message *')].filter(
        (e) => ['SCRIPT', 'IFRAME', 'IMG', 'OBJECT', 'EMBED', 'STYLE', 'FORM', 'BASE', 'META',
                'LINK', 'VIDEO', 'AUDIO', 'MATH'].includes(e.tagName.toUpperCase())
          || [...e.attributes].some((a) => a.name.startsWith('on')
          || (/href|src|action/.test(a.name) && !/^(https?:|mailto:)/.test(a.value))))
        .map((e) => e.outerHTML.slice(0, 200))""")
    return found


def upload(page: Any, file: object) -> None:
    raw = file if isinstance(file, bytes) else json.dumps(file).encode()
    chosen = {"name": "x.json", "mimeType": "application/json", "buffer": raw}
    page.set_input_files("input[type=file]", chosen)


def test_an_imported_conversation_is_text(page: Any) -> None:
    upload(page, hostile_file())
    page.wait_for_selector(".message")
    assert page.locator(".message.user").count() == len(PAYLOADS)
    open_all(page)
    assert hostile_elements(page) == []
    bubbles = page.locator(".bubble").all_inner_texts()
    assert bubbles[0].strip() == PAYLOADS[0]
    assert page.locator("h1.title").inner_text() == SHOWN
    assert page.locator(".branches option").all_inner_texts() == [SHOWN, "x"]
    calm(page)


def test_settings_and_menus_of_it_are_text(page: Any) -> None:
    page.get_by_role("button", name="Model and settings").click()
    assert page.locator("dialog textarea").input_value() == PAYLOADS[0]
    page.keyboard.press("Escape")
    page.locator(".entry").first.hover()
    page.locator(".entry .icon-button").first.click()
    page.get_by_role("menuitem", name="Delete").click()
    assert SHOWN in page.locator("dialog").inner_text()
    page.keyboard.press("Escape")
    page.fill("#search", "onerror")
    page.wait_for_selector(".entry .snippet")
    page.fill("#search", "")
    calm(page)


@pytest.mark.parametrize("file", [b"<img src=x onerror=pwn(1)>", {SHOWN: 1}, {"everwarm": SHOWN}])
def test_an_error_is_text(page: Any, file: object) -> None:
    upload(page, file)
    page.wait_for_selector(".fault")
    assert page.locator(".fault img").count() == 0
    page.get_by_role("button", name="Dismiss").click()
    calm(page)


def frames(turn: str, text: str) -> str:
    """A turn whose every word is hostile, in pieces that cut the text anywhere."""
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    told = [("reasoning", {"text": p}) for p in pieces]
    told += [("text", {"text": p}) for p in pieces]
    call = {"index": 0, "id": "c", "name": text[:200], "arguments": text}
    told += [("tool_call", call)]
    error = {"message": text, "type": "api_error", "param": None, "code": SHOWN}
    events = [("start", {"session": turn, "user": None, "turn": SHOWN}), *told]
    events += [("error", {"error": error})]
    return "".join(f"event: {n}\ndata: {json.dumps(d)}\n\n" for n, d in events)


def test_a_streamed_reply_is_text(page: Any, server: Server) -> None:
    """The server's own frames, but with hostile words: no model says all of these."""
    status, session, _ = server.call("POST", "/api/sessions", {"title": SHOWN})
    assert status == 200
    page.goto(f"{server.root}/#{session['id']}")
    page.wait_for_selector(".composer")
    page.route("**/send", lambda route: route.fulfill(
        body=frames(session, ALL), content_type="text/event-stream"
    ))  # fmt: skip
    page.evaluate("""() => { window.drawn = 0; new MutationObserver(() => {
        window.drawn = Math.max(window.drawn, document.querySelectorAll('.live .block').length);
        document.querySelectorAll('.live details').forEach((d) => { d.open = true; });
    }).observe(document.body, {childList: true, subtree: true}); }""")
    page.fill(".composer textarea", ALL)
    page.keyboard.press("Enter")
    page.wait_for_selector(".fault")
    assert page.evaluate("window.drawn") > 50
    assert page.locator(".fault img").count() == 0
    calm(page)
    page.unroute("**/send")


def test_what_a_person_types_is_text(page: Any, server: Server) -> None:
    server.call("PATCH", "/api/sessions/" + page.url.split("#")[1], {"settings": {"max_tokens": 4}})
    page.reload()
    page.wait_for_selector(".composer")
    page.fill(".composer textarea", ALL[:6000])
    page.keyboard.press("Enter")
    page.wait_for_selector(".reply .badge")
    assert page.locator(".bubble").last.inner_text().strip() == ALL[:6000].strip()
    assert hostile_elements(page) == []
    calm(page)


def test_the_dashboard_is_text(page: Any, server: Server) -> None:
    """Log lines and misses, with hostile words put in: the server's own hold no such text."""

    def spoil(route: Any) -> None:
        board = route.fetch().json()
        miss = {
            "at": 1,
            "part": ALL,
            "cause": ALL,
            "before": ALL,
            "after": ALL,
            "by_text": 1,
            "by_cache": 1,
        }
        board["misses"] = [{"turn": SHOWN, "at": 1.0, "miss": miss}]
        board["logs"] = [{"at": 1.0, "level": "info", "text": p} for p in PAYLOADS]
        board["running"] = [
            {"id": SHOWN, "is_cancelled": False, "done": 1, "total": 2, "completion": 0}
        ]
        board["model"]["id"] = SHOWN
        route.fulfill(json=board)

    page.route("**/api/dashboard", spoil)
    page.goto(f"{server.root}/dashboard")
    page.wait_for_selector(".logs .line")
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.locator(".logs .line").count() == len(PAYLOADS)
    page.locator(".node").first.click()
    assert SHOWN in page.locator("dialog").inner_text()
    calm(page)
    page.unroute("**/api/dashboard")
