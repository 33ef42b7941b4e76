"""axe finds no serious issue on any page, in both themes, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from browsing import browsing, calm, running
from serving import Server

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 320, "height": 640}
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("access")
    with running(zoo.save("llama", path / "model", smollm2), path / "home") as server:
        yield server


def issues(page: Any) -> list[str]:
    """What axe says, with the elements that it says it of."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not here")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {[n['html'][:120] for n in v['nodes'][:3]]}"
        for v in found
        if v["impact"] in SERIOUS
    ]


def fits(page: Any) -> None:
    """Nothing is wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_issue(server: Server, size: dict[str, int], theme: str) -> None:
    with browsing(viewport=size, color_scheme=theme) as page:
        page.goto(server.root)
        page.wait_for_selector(".empty h1")
        assert issues(page) == []
        fits(page)
        _, session, _ = server.call("POST", "/api/sessions", {"settings": {"max_tokens": 4}})
        page.goto(f"{server.root}/#{session['id']}")
        page.fill(".composer textarea", "Name a `colour` of **water**.")
        page.keyboard.press("Enter")
        page.wait_for_selector(".reply .badge")
        assert issues(page) == []
        fits(page)
        page.click(".reply .badge")
        assert issues(page) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Model and settings").click()
        assert issues(page) == []
        page.keyboard.press("Escape")
        page.goto(f"{server.root}/dashboard")
        page.wait_for_selector(".node")
        assert issues(page) == []
        fits(page)
        page.locator(".node").first.click()
        assert issues(page) == []
        calm(page)
