"""Summing up, going back, and taking a turn back, by the buttons of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zoo
from browsing import browsing, calm, running
from serving import Server


class Chat:
    """A person at the chat, with short replies."""

    def __init__(self, page: Any, server: Server) -> None:
        self.page, self.server = page, server
        page.goto(server.root)
        self.set("Longest reply", "6")

    def set(self, name: str, value: str) -> None:
        self.page.get_by_role("button", name="Model and settings").click()
        self.page.get_by_label(name).fill(value)
        self.page.get_by_label("Temperature").fill("0")
        self.page.get_by_role("button", name="Save").click()
        self.page.wait_for_selector("dialog", state="detached")

    def say(self, text: str) -> dict[str, Any]:
        n = len(self.server.call("GET", "/api/turns?limit=1000")[1]["turns"])
        self.page.fill(".composer textarea", text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_function(
            """async (n) => (await (await fetch('/api/turns?limit=1000')).json())
                .turns.length > n""",
            arg=n,
        )
        self.rest()
        return self.server.turn()

    def rest(self) -> None:
        self.page.wait_for_selector(".live", state="detached")
        self.page.wait_for_function("() => !document.querySelector('[aria-label=Stop]')")

    def bubbles(self) -> list[str]:
        return list(self.page.locator(".bubble").all_inner_texts())


def test_sum_up_read_the_old_part_and_go_back(tmp_path: Path, smollm2: Path) -> None:
    model = zoo.save("llama", tmp_path / "model", smollm2)
    flags = ("--no-disk", "--context-length", "640", "--compact-at", "1")
    with running(model, tmp_path / "home", *flags) as server, browsing() as page:
        chat = Chat(page, server)
        said = [f"Question {n}, " + "with words " * 25 for n in range(5)]
        for text in said:
            chat.say(text)
        page.get_by_role("button", name="Summarise").click()
        page.wait_for_selector(".summary h2")
        chat.rest()
        assert chat.bubbles() == []
        page.get_by_role("button", name="Read the earlier messages").click()
        earlier = page.locator(".earlier").inner_text()
        assert all(text.strip() in earlier for text in said)
        page.get_by_role("button", name="Hide the earlier messages").click()
        turn = chat.say("Go on.")
        assert turn["prefilled_tokens"] < 80
        page.get_by_role("button", name="Undo the summary").click()
        page.wait_for_function("() => document.querySelectorAll('.bubble').length === 5")
        turn = chat.say("Still warm?")
        assert turn["prefilled_tokens"] <= turn["new_tokens"]
        page.get_by_role("button", name="Remove the last turn").click()
        page.wait_for_function("() => document.querySelectorAll('.bubble').length === 5")
        assert [t.strip() for t in chat.bubbles()] == [t.strip() for t in said]
        calm(page)


def test_a_full_conversation_is_summed_up_before_ones_eyes(tmp_path: Path, smollm2: Path) -> None:
    model = zoo.save("llama", tmp_path / "model", smollm2)
    flags = ("--no-disk", "--context-length", "1024")
    with running(model, tmp_path / "home", *flags) as server, browsing() as page:
        chat = Chat(page, server)
        chat.set("Sum up when full to", "0.05")
        page.fill(".composer textarea", "Tell me of the sea, " + "in many words " * 20)
        page.keyboard.press("Enter")
        page.wait_for_selector(".summary h2")
        chat.rest()
        page.get_by_role("button", name="Undo the summary").click()
        page.wait_for_selector(".bubble")
        page.reload()
        page.wait_for_selector(".bubble")
        chat.say("And of the land.")
        assert page.locator(".summary").count() == 0, "not again, unasked"
        calm(page)
