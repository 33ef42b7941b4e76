"""Two tabs on one session, a reload in the middle, and addresses of sessions that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from browsing import browsing, calm, running
from serving import Server

WRITES = "() => (document.querySelector('.live .prose')?.textContent.length ?? 0) > 20"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("tabs")
    flags = ("--no-disk", "--prefill-step", "64")
    with running(zoo.save("llama", path / "model", smollm2), path / "home", *flags) as server:
        yield server


def new(server: Server, **settings: Any) -> str:
    body = {"settings": {"temperature": 0.0, "max_tokens": 6} | settings}
    return str(server.call("POST", "/api/sessions", body)[1]["id"])


def say(page: Any, text: str) -> None:
    page.fill(".composer textarea", text)
    page.keyboard.press("Enter")


def ended(page: Any) -> None:
    page.wait_for_selector(".reply:not(.live)")
    page.wait_for_selector(".live", state="detached")


def texts(page: Any) -> list[str]:
    return list(page.locator(".bubble, .reply .prose").all_inner_texts())


def is_whole(server: Server, session: str) -> None:
    """Every message hangs on another one, and every branch ends at one."""
    tree = server.call("GET", f"/api/sessions/{session}/tree")[1]
    known = {None, *(m["id"] for m in tree["messages"])}
    assert all(m["parent"] in known for m in tree["messages"])
    assert all(b["head"] in known for b in tree["branches"])


def test_two_tabs_see_one_session(server: Server) -> None:
    session = new(server, max_tokens=4000)
    with browsing() as one:
        two = one.context.new_page()
        for page in (one, two):
            page.goto(f"{server.root}/#{session}")
            page.wait_for_selector(".composer")
        say(one, "Go on and on.")
        one.wait_for_function(WRITES)
        say(two, "And me?")  # refused, and then this tab follows the turn that runs
        two.wait_for_selector(".fault")
        two.wait_for_function(WRITES)
        assert two.locator(".composer textarea").input_value() == "And me?"
        one.reload()  # in the middle: it is joined again
        one.wait_for_function(WRITES)
        two.get_by_role("button", name="Stop").click()
        for page in (one, two):
            ended(page)
        assert texts(one) == texts(two)
        held = server.call("GET", f"/api/sessions/{session}")[1]["messages"]
        assert [m["role"] for m in held] == ["user", "assistant"]
        assert held[-1]["finish"] == "cancelled"
        server.call("PATCH", f"/api/sessions/{session}", {"settings": {"max_tokens": 6}})
        say(one, "From the first tab.")
        one.wait_for_function("() => document.querySelectorAll('.reply:not(.live)').length === 2")
        say(two, "From the second, which has not seen it.")
        two.wait_for_function("() => document.querySelectorAll('.reply:not(.live)').length === 3")
        one.reload()
        one.wait_for_function("() => document.querySelectorAll('.reply:not(.live)').length === 3")
        assert texts(one) == texts(two)
        is_whole(server, session)
        calm(one)


@pytest.mark.parametrize("id", ["nobody", "s0000000000000000", "../../etc", "%3Cimg%20src=x%3E"])
def test_a_session_that_is_not_there_is_said_so(server: Server, id: str) -> None:
    with browsing() as page:
        page.goto(f"{server.root}/#{id}")
        page.wait_for_selector(".fault")
        page.wait_for_selector(".empty h1")
        assert page.locator(".fault p").inner_text() and page.locator(".fault img").count() == 0
        assert page.url.split("#")[0] == f"{server.root}/"
        calm(page)


def test_a_session_that_was_deleted_in_another_tab(server: Server) -> None:
    session = new(server)
    with browsing() as page:
        page.goto(f"{server.root}/#{session}")
        page.wait_for_selector(".composer")
        server.call("DELETE", f"/api/sessions/{session}")
        say(page, "Are you there?")
        page.wait_for_selector(".fault")
        assert page.locator(".composer textarea").input_value() == "Are you there?"
        calm(page)
