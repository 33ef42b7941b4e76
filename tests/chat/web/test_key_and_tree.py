"""A server with a key asks for it on its pages; parts of the cache are pinned and dropped there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zoo
from browsing import browsing, calm, running
from serving import Server

KEY = "between us two"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    path = tmp_path_factory.mktemp("key") / "model"
    zoo.save("llama", path, smollm2)
    return path


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[Server]:
    with running(model, tmp_path / "home", "--api-key", KEY) as server:
        yield server


def test_a_key_is_asked_for_until_it_is_right(server: Server) -> None:
    with browsing() as page:
        page.goto(f"{server.root}/")
        form = page.get_by_role("form", name="API key")
        form.get_by_label("API key").fill("wrong")
        form.get_by_role("button", name="Continue").click()
        page.wait_for_timeout(300)
        form.get_by_label("API key").fill(KEY)
        form.get_by_role("button", name="Continue").click()
        form.wait_for(state="detached")
        page.get_by_role("button", name="Model and settings").click()
        page.get_by_label("Longest reply").fill("6")  # this model ends no reply by itself
        page.get_by_role("button", name="Save").click()
        page.wait_for_selector("dialog", state="detached")
        page.fill(".composer textarea", "Hello")
        page.keyboard.press("Enter")
        page.wait_for_selector(".reply:not(.live) .badge")
        page.reload()
        page.wait_for_selector(".reply:not(.live) .badge")
        assert page.get_by_role("form", name="API key").count() == 0
        calm(page)


def test_a_part_of_the_cache_is_pinned_and_dropped(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    assert server.call("POST", "/v1/chat/completions", body, x_api_key=KEY)[0] == 200

    def pinned() -> list[bool]:
        nodes = server.call("GET", "/api/cache/tree", x_api_key=KEY)[1]["nodes"]
        return [n["pinned"] for n in nodes]

    assert pinned() and not any(pinned())
    with browsing() as page:
        page.goto(f"{server.root}/dashboard")
        page.get_by_role("form", name="API key").get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Continue").click()
        page.locator("g.node").last.click()
        page.get_by_role("button", name="Pin", exact=True).click()
        page.get_by_role("button", name="Unpin").wait_for()
        assert any(pinned())
        page.get_by_role("button", name="Unpin").click()
        page.get_by_role("button", name="Pin", exact=True).wait_for()
        assert not any(pinned())
        n = len(pinned())
        page.get_by_role("button", name="Drop", exact=True).click()
        page.get_by_role("button", name="Drop it and all behind it").click()
        page.wait_for_function("n => document.querySelectorAll('g.node').length < n", arg=n)
        assert len(pinned()) < n
        calm(page)
