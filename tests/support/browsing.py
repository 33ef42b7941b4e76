"""A real browser on the real server. Skips where Playwright or the system's Chromium is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from serving import Server

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
]
WAIT_MS = 180_000
"""For replies: nothing is asserted about time; a busy machine may be slow."""

WATCH = """
window.executed = [];
window.violations = [];
window.pwn = (n) => window.executed.push(n);
window.alert = window.confirm = window.prompt = (n) => window.executed.push(String(n));
document.addEventListener("securitypolicyviolation", (e) =>
  window.violations.push([e.violatedDirective, e.blockedURI, e.sample, e.sourceFile].join(" ")));
"""
"""Counts what hostile text executes, and what the content policy had to stop."""


@contextmanager
def running(model: Path, home: Path, *flags: str, port: int = 0) -> Iterator[Server]:
    """A server with disk and remembered replies in `home`, as a person has it."""
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", str(port), *flags]
    env = os.environ | {
        "EVERWARM_HOME": str(home),
        "EVERWARM_DISK": "true",
        "EVERWARM_REMEMBER": "true",
    }
    process = Forked(command, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    try:
        yield Server(int(process.stdout.readline().split(":")[-1].split("/")[0]))
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@contextmanager
def browsing(**context: Any) -> Iterator[Any]:
    """A page of a fresh browser, watched for executed text and violations of the content policy."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(WAIT_MS)
        page.add_init_script(WATCH)
        page.faults = []
        page.on("pageerror", lambda e: page.faults.append(str(e)))
        try:
            yield page
        finally:
            browser.close()


def calm(page: Any) -> None:
    """No script failed, nothing hostile ran, and the content policy had nothing to stop."""
    assert page.faults == []
    assert page.evaluate("window.executed") == []
    assert page.evaluate("window.violations") == []
