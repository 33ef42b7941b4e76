"""The dashboard shows what is true: during a prefill, after evictions, after a restart.

What stands on the page is compared with `/api/turns`, `/api/ps` and `everwarm cache stats`, in the
page's own spelling of numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zoo
from browsing import browsing, calm, running
from serving import Server

SPELL = """async ([kind, value]) => (await import('/web/js/format.js'))[kind](value)"""
SETTLED = """async () => {
    const ask = async () => JSON.stringify((await (await fetch('/api/ps')).json()));
    const a = await ask();
    await new Promise((r) => setTimeout(r, 500));
    return a === await ask(); }"""


def spelled(page: Any, kind: str, value: float) -> str:
    return str(page.evaluate(SPELL, [kind, value]))


def ask(server: Server, text: str, **more: Any) -> int:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4} | more
    return server.call("POST", "/v1/chat/completions", body)[0]


def look(page: Any) -> None:
    """Have the page ask now, and wait for what it shows then."""
    with page.expect_response("**/api/dashboard"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(500)  # the tree's answer, and one drawing


def figures(page: Any) -> list[str]:
    return list(page.locator(".figures strong").all_inner_texts())


def expected_figures(page: Any, turns: list[dict[str, Any]]) -> list[str]:
    """What the card must say, from the turns' records alone."""
    total = {k: sum(t[k] for t in turns) for k in (
        "cached_tokens", "prompt_tokens", "prefilled_tokens", "new_tokens", "unseen_tokens",
        "again", "prefill_s", "restore_s",
    )}  # fmt: skip
    read = total["prefilled_tokens"]
    saved_s = total["cached_tokens"] * total["prefill_s"] / read - total["restore_s"]
    return [
        spelled(page, "percent", total["cached_tokens"] / total["prompt_tokens"]),
        spelled(page, "count", total["cached_tokens"]),
        spelled(page, "seconds", max(0.0, saved_s)),
        _ratio(read, total["new_tokens"]),
        _ratio(read, total["unseen_tokens"]),
        spelled(page, "count", total["again"]),
        spelled(page, "count", len(turns)),
    ]


def _ratio(part: float, whole: float) -> str:
    """A server that was started anew finds all on disk: nothing is unseen."""
    return f"{part / whole:.2f}" if whole else "\N{EN DASH}"


def meters(page: Any) -> dict[str, str]:
    return dict(
        page.evaluate("""() => [...document.querySelectorAll('.use')].map((u) =>
        [u.querySelector('.row span').textContent, u.querySelector('.num').textContent])""")
    )


def of_limit(page: Any, used: float, limit: float) -> str:
    return f"{spelled(page, 'bytes', used)} of {spelled(page, 'bytes', limit)}"


def is_true(page: Any, server: Server) -> None:
    """Everything on the page is what the server's other answers say."""
    page.wait_for_function(SETTLED)
    look(page)
    engine = server.call("GET", "/api/ps")[1]["engine"]
    turns = server.call("GET", "/api/turns?limit=1000")[1]["turns"]
    nodes = server.call("GET", "/api/cache/tree")[1]["nodes"]
    if turns:
        assert figures(page) == expected_figures(page, turns)
    shown = meters(page)
    held = of_limit(page, engine["cache_bytes"], engine["cache_budget_bytes"])
    assert shown["Conversations in memory"] == held
    if "disk_state" in engine:
        assert shown["On disk"] == of_limit(page, engine["disk_bytes"], engine["disk_budget_bytes"])
        today = engine["disk_written_today_bytes"], engine["disk_write_budget_bytes"]
        assert shown["Written today"] == of_limit(page, *today)
    assert page.locator("g.node").count() == len(nodes) > 0
    for tier in ("memory", "disk", "both", "gone"):
        drawn = page.locator(f"g.node.tier-{tier}").count()
        assert drawn == sum(n["tier"] == tier for n in nodes)
    assert sum(n["tokens"] for n in nodes) == engine["tree_tokens"]
    assert abs(sum(n["bytes"] for n in nodes) - engine["cache_bytes"]) <= len(nodes)


def cache_stats(home: Path) -> dict[str, Any]:
    """What the command says, while no server has the directory."""
    done = subprocess.run(
        [sys.executable, "-m", "everwarm", "cache", "stats", "--json"],
        env=os.environ | {"EVERWARM_HOME": str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_a_prefill_that_runs_is_shown_and_cancelled(tmp_path: Path, smollm2: Path) -> None:
    model = zoo.save("llama", tmp_path / "model", smollm2)
    slow = ("--prefill-step", "1", "--no-disk")
    with running(model, tmp_path / "home", *slow) as server, browsing() as page:
        assert ask(server, "Hello") == 200
        page.goto(f"{server.root}/dashboard")
        page.get_by_text("No turn runs now.").wait_for()
        asked = threading.Thread(target=ask, args=(server, "many words " * 1800))
        asked.start()
        page.wait_for_selector(".running .progress")
        with page.expect_response("**/api/dashboard") as answer:
            pass
        (turn,) = answer.value.json()["running"]
        page.wait_for_timeout(200)
        said = page.locator(".running .progress").inner_text()
        count = {k: spelled(page, "count", turn[k]) for k in ("done", "total")}
        assert f"Reading {count['done']} of {count['total']} tokens" in said
        assert 0 < turn["done"] < turn["total"]
        page.locator(".running").get_by_role("button", name="Cancel").click()
        asked.join(60)
        page.get_by_text("No turn runs now.").wait_for()
        record = server.turn()
        assert (record["id"], record["finish"]) == (turn["id"], "cancelled")
        assert record["prompt_tokens"] == turn["total"]
        assert turn["done"] <= record["cached_tokens"] + record["prefilled_tokens"]
        assert record["cached_tokens"] + record["prefilled_tokens"] < turn["total"]
        is_true(page, server)
        calm(page)


def test_evictions_and_a_restart_are_shown(tmp_path: Path, smollm2: Path) -> None:
    model, home = zoo.save("llama", tmp_path / "model", smollm2), tmp_path / "home"
    tiny = ("--memory-budget", "1500KiB")
    with ExitStack() as life, browsing() as page:
        server = life.enter_context(running(model, home, *tiny))
        page.goto(f"{server.root}/dashboard")
        for n in range(6):
            text = f"Story {n}. " + f"word{n} " * 250
            assert ask(server, text) == 200
            is_true(page, server)
        engine = server.call("GET", "/api/ps")[1]["engine"]
        assert engine["cache_bytes"] <= engine["cache_budget_bytes"]
        assert page.locator("g.node.tier-disk").count() > 0, "something was let go"
        assert page.locator("g.node.tier-both").count() > 0
        life.close()
        page.wait_for_selector(".offline", state="visible")
        told = cache_stats(home)
        assert told["nbytes"] == engine["disk_bytes"] > 0
        assert told["pieces"] == engine["disk_pieces"]
        assert told["written_today_bytes"] == engine["disk_written_today_bytes"]
        assert told["write_budget_bytes"] == engine["disk_write_budget_bytes"]
        with running(model, home, *tiny, port=server.port):
            page.wait_for_selector(".offline", state="hidden")
            is_true(page, server)
            assert meters(page)["On disk"].startswith(spelled(page, "bytes", told["nbytes"]))
            written = spelled(page, "bytes", told["written_today_bytes"])
            assert meters(page)["Written today"].startswith(written)
            nodes = page.locator("g.node").count()
            assert page.locator("g.node.tier-disk").count() == nodes
            assert ask(server, "Story 5. " + "word5 " * 250) == 200
            assert server.turn()["cached_from"] == "disk"
            is_true(page, server)
            calm(page)
