"""What `--history verbatim` saves: one scripted agent session, once in each mode.

    python benchmarks/history_modes.py [--shape llama-2x1] [--json FILE]

Four user turns with five tool calls each, by a template that drops reasoning when the next user
message comes. The replies are dictated (`--forced-replies`); all else is real: a server, the cache,
a client that sends reasoning back. Printed: tokens read before the first new one, per request.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import shapes
from long_context import server
from replay_model import make_model

from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.lab.conversation import WORDS
from everwarm.models import ensure_default

USER_TURNS, CALLS = 4, 5
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]


class Session:
    """The agent: asks, gets a dictated reply, runs the tool, asks on."""

    def __init__(self, client: ChatClient) -> None:
        self._client, self._r = client, random.Random(7)
        system = f"You are a coding agent. {self._prose(400)}"
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        for turn in range(USER_TURNS):
            self.messages.append({"role": "user", "content": f"Task {turn}: {self._prose(20)}"})
            for step in range(CALLS):
                self._step(turn, step)
            self._ask(turn, CALLS, f"{self._thought()}Done with task {turn}.")

    def _step(self, turn: int, step: int) -> None:
        call = json.dumps({"name": "bash", "arguments": {"command": f"make {turn}{step}"}})
        said = self._ask(turn, step, f"{self._thought()}<tool_call>{call}</tool_call>")
        (made,) = said["tool_calls"]
        result = {"role": "tool", "tool_call_id": made["id"], "content": self._prose(120)}
        self.messages.append(result)

    def _ask(self, turn: int, step: int, reply: str) -> dict[str, Any]:
        body = {"messages": self.messages, "tools": shapes.TOOLS, "everwarm": {"reply": reply}}
        (got,) = self._client.post("/v1/chat/completions", body)
        message: dict[str, Any] = got["choices"][0]["message"]
        message.pop("refusal")
        self.messages.append(message)
        record = self._client.get("/api/turns?limit=1")["turns"][0]
        keys = ("prompt_tokens", "prefilled_tokens", "new_tokens", "again")
        self.rows.append({"turn": turn, "step": step} | {k: record[k] for k in keys})
        return message

    def _thought(self) -> str:
        return f"<think>\n{self._prose(80)}\n</think>\n\n"

    def _prose(self, n: int) -> str:
        return " ".join(self._r.choice(WORDS) for _ in range(n))


def run(shape: str) -> dict[str, Any]:
    """The session in both modes."""
    tokenizer = ensure_default(Settings().home, convert=shapes.no_convert)
    modes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as tmp:
        path = make_model(shape, Path(tmp), tokenizer, MARKERS)
        for mode in ("template", "verbatim"):
            flags = ["--history", mode, "--forced-replies", "--no-remember"]
            command = ["-m", "everwarm", "serve", str(path), *flags]
            with server(command) as url, ChatClient(url) as client:
                session = Session(client)
                session.run()
            rows = session.rows
            read, new = (sum(r[k] for r in rows) for k in ("prefilled_tokens", "new_tokens"))
            first = [r["prefilled_tokens"] for r in rows if r["step"] == 0]
            modes[mode] = {
                "read_at_user_turns": first,
                "read": read,
                "new": new,
                "reprocess_ratio": round(read / new, 3),
                "again": sum(r["again"] for r in rows),
                "requests": rows,
            }
    return {"shape": shape, "user_turns": USER_TURNS, "calls_each": CALLS, **modes}


def main() -> None:
    """Print both columns; write JSON where asked."""
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--shape", choices=list(shapes.SHAPES), default="llama-2x1")
    args.add_argument("--json", type=Path)
    given = args.parse_args()
    made = run(given.shape)
    for mode in ("template", "verbatim"):
        shown = {k: v for k, v in made[mode].items() if k != "requests"}
        print(f"{mode:9} {shown}")
    if given.json:
        given.json.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
