"""What a person sees of an engine that loads, and ends within a reply, which then goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zoo
from browsing import browsing, calm
from engines import engines_of
from serving import Server

WRITES = "() => (document.querySelector('.live .prose')?.textContent.length ?? 0) > 20"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return zoo.save("llama", tmp_path_factory.mktemp("engine") / "model", smollm2)


def test_a_page_from_the_first_moment_on_and_a_reply_that_goes_on(
    model: Path, tmp_path: Path
) -> None:
    with browsing() as page:
        command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0"]
        env = os.environ | {"EVERWARM_HOME": str(tmp_path)}
        errors = tmp_path / "errors.txt"
        with errors.open("w") as file:
            process = subprocess.Popen(command, stderr=file, stdout=subprocess.DEVNULL, env=env)
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:([0-9]+)", errors.read_text())):
                assert process.poll() is None
            server = Server(int(found[1]))
            page.goto(server.root)
            assert page.title() == "everwarm is starting"
            page.wait_for_selector(".composer")  # it becomes the page that was asked for
            calm(page)

            page.get_by_role("button", name="Model and settings").click()
            page.get_by_label("Longest reply").fill("1500")
            page.get_by_role("button", name="Save").click()
            page.wait_for_selector("dialog", state="detached")
            page.fill(".composer textarea", "Go on and on.")
            page.keyboard.press("Enter")
            page.wait_for_function(WRITES)
            (engine,) = engines_of(process.pid)
            os.kill(engine, signal.SIGKILL)
            page.wait_for_selector(".reply:not(.live) .ended")
            assert "The engine ended here." in page.locator(".ended").inner_text()
            assert "SIGKILL" in page.locator(".fault").inner_text()
            cut = page.locator(".reply .prose").inner_text()

            page.get_by_role("button", name="Continue", exact=True).click()
            page.wait_for_function(WRITES)
            page.get_by_role("button", name="Stop").click()
            page.wait_for_selector(".reply:not(.live)")
            assert page.locator(".reply").count() == 1
            said = page.locator(".reply .prose").inner_text()
            assert said.startswith(cut[: len(cut) // 2]) and len(said) >= len(cut)
            assert "Stopped." in page.locator(".ended").inner_text()
            calm(page)
        finally:
            process.terminate()
            assert process.wait(60) == 0
