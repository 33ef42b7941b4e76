"""Take the pictures in docs/screenshots: real pages of a real server, with dictated replies.

    python tests/chat/web/screenshots.py MODEL_DIR [FOLDER]

Not a test: a person looks at them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from browsing import browsing, running  # noqa: E402
from serving import Server  # noqa: E402

WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 800}
BOARD, BOARD_PHONE = {"width": 1280, "height": 1240}, {"width": 390, "height": 1500}
ASKED = "How would you store time series of 40 sensors in SQLite?"
TABLE = """Three designs cover most cases:

| Design | Write cost | Range scan | Good for |
|---|---:|---:|---|
| One row per sample | high | fast with an index | few series |
| One row per hour, packed | low | fast | many series |
| One file per day | lowest | needs a merge | archives |

For **packed rows**, the mean error of a down-sampled window of $n$ samples is \
$\\sigma / \\sqrt{n}$, so an hour at 1 Hz loses little.

```python
def pack(samples: list[float], start: int) -> bytes:
    # deltas of a slow signal are small, so they pack well
    deltas = [b - a for a, b in zip(samples, samples[1:])]
    return struct.pack(f"<qd{len(deltas)}f", start, samples[0], *deltas)
```
"""
SECOND = """Packed rows: 24 rows a day and series, 350,000 rows a year for 40 of them. Keep the \
last hour in a plain table and pack it when it is over:

1. `INSERT` samples into `recent`.
2. Each hour, pack them into `hours` and delete them, in one transaction.
3. Read a range from `hours`, and its end from `recent`.
"""
OTHERS = {
    "sky": ("Why is the sky dark at night?", "Light of the farthest stars has not reached us yet."),
    "dinner": ("Plan a week of dinners without meat.", "Monday: lentils with rice and onions."),
    "git": (
        "Rename a git branch, here and on the server.",
        "Run `git branch -m new`, then push it.",
    ),
}


def dictate(server: Server, name: str, messages: list[dict[str, str]], reply: str) -> None:
    body = {"messages": messages, "everwarm": {"reply": reply}}
    status, answer, _ = server.call("POST", "/v1/chat/completions", body, x_session_id=name)
    assert status == 200, answer
    messages.append({"role": "assistant", "content": reply})


def talk(server: Server) -> str:
    """Conversations to show; the id of the long one."""
    for name, (asked, reply) in OTHERS.items():
        dictate(server, name, [{"role": "user", "content": asked}], reply)
    long = [{"role": "user", "content": ASKED}]
    dictate(server, "sensors", long, TABLE)
    long.append({"role": "user", "content": "Which one do you recommend for one sample a second?"})
    dictate(server, "sensors", list(long), "One row per sample is simplest: index it by series.")
    dictate(server, "sensors", long, SECOND)
    return str(server.call("GET", "/api/sessions")[1]["sessions"][0]["id"])


def shoot(folder: Path, server: Server, session: str, theme: str, width: str) -> None:
    is_phone, end = width == "phone", f"{'-phone' if width == 'phone' else ''}-{theme}.png"
    with browsing(viewport=PHONE if is_phone else WIDE, color_scheme=theme) as page:

        def save(name: str) -> None:
            page.wait_for_timeout(400)
            page.screenshot(path=folder / f"{name}{end}")

        page.goto(server.root)
        page.wait_for_selector(".empty h1")
        save("empty")
        page.goto(f"{server.root}/#{session}")
        page.wait_for_selector(".reply .badge")
        page.wait_for_selector(".maths[role]")
        save("chat-end")
        page.locator(".scroll").evaluate("(e) => { e.scrollTop = 0; }")
        save("chat")
        page.locator(".reply .badge").last.click()
        save("turn")
        page.keyboard.press("Escape")
        if is_phone:
            page.get_by_role("button", name="Conversations").click()
            save("list")
        page.set_viewport_size(BOARD_PHONE if is_phone else BOARD)
        page.goto(f"{server.root}/dashboard")
        page.wait_for_selector("g.node")
        save("dashboard")


def shoot_summary(folder: Path, server: Server, session: str) -> None:
    server.call("PATCH", f"/api/sessions/{session}", {"settings": {"max_tokens": 60}})
    assert server.call("POST", f"/api/sessions/{session}/compact", {})[0] == 200
    for theme, size, end in (("light", WIDE, "-light"), ("dark", PHONE, "-phone-dark")):
        with browsing(viewport=size, color_scheme=theme) as page:
            page.goto(f"{server.root}/#{session}")
            page.get_by_role("button", name="Read the earlier messages").click()
            page.wait_for_selector(".earlier .message")
            page.wait_for_timeout(400)
            page.screenshot(path=folder / f"summary{end}.png")


def main(model: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    flags: Any = ("--forced-replies", "--compact-at", "1")
    with tempfile.TemporaryDirectory() as home, running(model, Path(home), *flags) as server:
        session = talk(server)
        for theme in ("light", "dark"):
            for width in ("wide", "phone"):
                shoot(folder, server, session, theme, width)
        shoot_summary(folder, server, session)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else ROOT / "docs/screenshots")
