"""A person's walk through the chat, in a real browser on the real server.

Counts come from `/api/turns`; what the badge says must be the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zoo
from browsing import browsing, calm, running
from serving import Server

WORD = "xyzzyplugh"
IS_WRITING = "() => (document.querySelector('.live .prose')?.textContent.length ?? 0) > 40"
SCAFFOLD = 8
"""More tokens than a template writes in front of a reply: regenerating reads them once more."""


@dataclass
class Walk:
    """A person at a page, and the server behind it, which can be started anew."""

    page: Any
    server: Server
    home: Path

    def set_longest(self, tokens: int) -> None:
        self.page.get_by_role("button", name="Model and settings").click()
        self.page.get_by_label("Longest reply").fill(str(tokens))
        self.page.get_by_label("Temperature").fill("0")
        self.page.get_by_role("button", name="Save").click()
        self.page.wait_for_selector("dialog", state="detached")

    def begin(self, text: str) -> None:
        self.page.fill(".composer textarea", text)
        self.page.keyboard.press("Enter")

    def finish(self) -> dict[str, Any]:
        """The turn's record, once the reply stands with the badge that says the same."""
        self.page.wait_for_selector(".live", state="detached")
        self.page.wait_for_function("() => !document.querySelector('[aria-label=Stop]')")
        record = self.server.turn()
        badge = self.page.locator(".badge").last.inner_text()
        word = "read" if record["miss"] else "new"
        says = f"{record['prefilled_tokens']:,} {word} of {record['prompt_tokens']:,}"
        assert says in badge
        return record

    def say(self, text: str) -> dict[str, Any]:
        n = self.page.locator(".reply:not(.live)").count()
        self.begin(text)
        self.page.wait_for_function(
            "n => document.querySelectorAll('.reply:not(.live)').length > n", arg=n
        )
        return self.finish()

    def again(self, act: Any) -> dict[str, Any]:
        """A turn that `act` begins, whose reply takes an old one's place."""
        before = self.server.turn()["id"]
        act()
        self.page.wait_for_function(
            """async (before) => {
            const { turns } = await (await fetch('/api/turns?limit=1')).json();
            return turns[0].id !== before; }""",
            arg=before,
        )
        return self.finish()

    def texts(self) -> list[str]:
        out: list[str] = self.page.locator(".bubble").all_inner_texts()
        return out

    def n_turns(self) -> int:
        return len(self.server.call("GET", "/api/turns?limit=1000")[1]["turns"])

    def settle(self) -> None:
        """Until nothing more is written to disk."""
        self.page.wait_for_function(
            """async () => {
            const ask = async () => (await (await fetch('/api/ps')).json()).engine;
            const a = await ask();
            await new Promise((r) => setTimeout(r, 400));
            const b = await ask();
            return a.disk_bytes === b.disk_bytes && a.disk_pieces === b.disk_pieces; }"""
        )


def is_warm(record: dict[str, Any]) -> bool:
    """Nothing was read that was not new."""
    return bool(
        record["miss"] is None
        and record["cached_tokens"] > 0
        and record["prefilled_tokens"] <= max(record["new_tokens"], 1)
    )


def holders(home: Path, word: str) -> list[str]:
    files = (p for p in home.rglob("*") if p.is_file())
    return [p.name for p in files if word.encode() in p.read_bytes()]


@pytest.fixture(params=["smollm2", "qwen3_5"])
def walked(
    request: pytest.FixtureRequest, tmp_path: Path, smollm2: Path
) -> Iterator[tuple[Path, Path]]:
    """The model's directory and an empty home: the default model, and a tiny hybrid."""
    is_hybrid = request.param != "smollm2"
    model = zoo.save(request.param, tmp_path / "model", smollm2) if is_hybrid else smollm2
    yield model, tmp_path / "home"


def test_a_walk_through_the_chat(walked: tuple[Path, Path], tmp_path: Path) -> None:
    model, home = walked
    with ExitStack() as life, browsing(accept_downloads=True) as page:
        server = life.enter_context(running(model, home))
        walk = Walk(page, server, home)
        page.goto(server.root)
        walk.set_longest(12)
        three_turns(walk)
        regenerate(walk)
        edit_the_first(walk)
        switch_back_and_forth(walk)
        stop_and_continue(walk)
        walk.settle()
        life.close()
        page.wait_for_selector(".offline", state="attached")
        with running(model, home, port=server.port):
            come_back(walk)
            search_export_import(walk, tmp_path)
            delete_for_real(walk)
            calm(page)


def three_turns(walk: Walk) -> None:
    first = walk.say(f"The word is {WORD}. Say a colour.")
    assert first["cached_tokens"] == 0
    assert is_warm(walk.say("Another one."))
    assert is_warm(walk.say("And a third."))
    assert walk.page.url.split("#")[1]


def regenerate(walk: Walk) -> None:
    last = walk.page.locator(".reply").last
    record = walk.again(last.get_by_role("button", name="Regenerate").click)
    assert record["prefilled_tokens"] <= SCAFFOLD
    assert record["miss"] is None or record["miss"]["part"] == "scaffold"
    assert "warm" in str(walk.page.locator(".badge").last.get_attribute("class")).split()
    assert len(walk.texts()) == 3


def edit_the_first(walk: Walk) -> None:
    page = walk.page
    page.locator(".message.user").first.hover()
    page.get_by_role("button", name="Edit and branch").first.click()
    page.get_by_label("Edit message").fill(f"The word is still {WORD}. Say a number.")

    walk.again(lambda: page.keyboard.press("Enter"))
    assert walk.texts() == [f"The word is still {WORD}. Say a number."]
    assert page.locator(".switcher .num").first.inner_text() == "2/2"


def switch_back_and_forth(walk: Walk) -> None:
    page = walk.page
    before = walk.n_turns()
    page.get_by_role("button", name="Earlier version").first.click()
    page.wait_for_function("() => document.querySelectorAll('.bubble').length === 3")
    page.get_by_role("button", name="Later version").first.click()
    page.wait_for_function("() => document.querySelectorAll('.bubble').length === 1")
    assert walk.n_turns() == before
    assert is_warm(walk.say("One more."))
    page.get_by_role("button", name="Earlier version").first.click()
    page.wait_for_function("() => document.querySelectorAll('.bubble').length === 3")
    assert is_warm(walk.say("A fourth."))


def stop_and_continue(walk: Walk) -> None:
    page = walk.page
    walk.set_longest(3000)
    walk.begin("Tell me a very long story about a lighthouse, with all details.")
    page.wait_for_function(IS_WRITING)
    page.reload()  # in the middle of it: the page joins it again
    page.wait_for_function(IS_WRITING)
    page.keyboard.press("Escape")
    page.wait_for_selector(".ended")
    assert walk.finish()["finish"] == "cancelled"
    walk.set_longest(12)
    assert is_warm(walk.say("Go on."))


def come_back(walk: Walk) -> None:
    """The server is another process now; the page finds it by itself."""
    walk.page.wait_for_selector(".offline", state="hidden")
    record = walk.say("Are you still there?")
    assert is_warm(record)


def search_export_import(walk: Walk, folder: Path) -> None:
    page = walk.page
    page.keyboard.press("Escape")
    page.locator(".scroll").focus()
    page.keyboard.press("/")
    page.keyboard.type(WORD)
    page.wait_for_selector(".entry .snippet")
    assert page.locator(".entry").count() == 1
    page.fill("#search", "nosuchword")
    page.wait_for_selector(".none")
    page.fill("#search", "")
    page.wait_for_selector(".entry")

    def export(name: str) -> Path:
        page.locator(".entry").first.hover()
        page.locator(".entry .icon-button").first.click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=name).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    assert WORD in export("Export as Markdown").read_text()
    file = export("Export as JSON")
    assert json.loads(file.read_text())["everwarm"] == 1
    shown = walk.texts()
    old = page.url
    page.set_input_files("input[type=file]", str(file))
    page.wait_for_function("old => location.href !== old", arg=old)
    page.wait_for_selector(".bubble")
    assert walk.texts() == shown
    assert page.locator(".entry").count() == 2


def delete_for_real(walk: Walk) -> None:
    page = walk.page
    walk.settle()
    assert holders(walk.home, WORD)
    for left in (1, 0):
        page.locator(".entry").first.hover()
        page.locator(".entry .icon-button").first.click()
        page.get_by_role("menuitem", name="Delete").click()
        page.get_by_role("button", name="Delete for good").click()
        page.wait_for_function("n => document.querySelectorAll('.entry').length === n", arg=left)
    walk.settle()
    assert holders(walk.home, WORD) == []
    assert re.fullmatch(r".*/#?", page.url)
