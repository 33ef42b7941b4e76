"""`everwarm demo`: the same ten turns with the cache on and with it off, side by side.

It speaks HTTP to servers of its own, as any client would, and ends them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.table import Table

from everwarm.cli.client import Client, Json, Reply
from everwarm.config import Settings
from everwarm.errors import EngineError

_START_S = 300.0
_STOP_S = 15.0
_SYSTEM = "You are a patient guide for people who travel by train. Answer in one short sentence."
_TURNS = (
    "Hello! Next month I want to travel from Lisbon to Helsinki by train, mostly in daylight, "
    "with two friends, one large suitcase each and a folding bicycle. Which city should be the "
    "first longer stop on the way?",
    "That sounds good. We like small museums, old bridges and bakeries more than famous sights, "
    "and we would rather walk than take a bus. How many nights should we plan for a stop of "
    "that kind?",
    "One of my friends gets tired in crowded trains. Is it wiser to leave very early in the "
    "morning or to wait until the middle of the day, when people who commute are already at "
    "work?",
    "Let us talk about the bicycle. It folds to the size of a suitcase and weighs eleven "
    "kilograms. Do we need to book a place for it, or may it travel with us as ordinary "
    "luggage?",
    "We would like to spend no more than ninety euros a day for each of us, meals and beds "
    "included, tickets not counted. Is that possible in the larger cities, or should we stay "
    "outside of them?",
    "In the middle of the journey there is a weekend with a public holiday, when many shops "
    "close. What should we buy before it begins, and where may we still find something warm to "
    "eat?",
    "My other friend wants to draw what she sees and needs a table by the window. Which side of "
    "the train would you choose for the part along the coast, when we are going towards the "
    "north?",
    "If we miss a connection in the evening, we could sleep near the station or take a night "
    "bus. Which of the two would you prefer with all this luggage, and what should we ask the "
    "staff for?",
    "For the last part there is a ferry across the sea that takes a whole night. Would you book "
    "a cabin for the three of us, or are the chairs on the upper deck good enough for a few "
    "hours?",
    "Thank you, this helps a lot. Please think again about everything that I told you about our "
    "plans, our luggage and our budget, and name the one thing that we should not forget to do.",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn, answered warm and cold from the same messages."""

    warm: Reply
    cold: Reply

    def row(self) -> dict[str, float | int | bool]:
        return {
            "prompt_tokens": self.warm.prompt_tokens,
            "cached_tokens": self.warm.cached_tokens,
            "prefilled_tokens": self.warm.prefilled_tokens,
            "ttft_warm_s": round(self.warm.ttft_s, 4),
            "ttft_cold_s": round(self.cold.ttft_s, 4),
            "ratio": round(self.cold.ttft_s / self.warm.ttft_s, 2),
            "same_answer": self.warm.text == self.cold.text,
        }


def run_demo(model: Path, home: Path, *, as_json: bool) -> None:
    """Hold the conversation twice and print the comparison."""
    console = Console(stderr=True)
    with console.status("Ten turns with the cache on ..."), _server(model, home) as client:
        warm = _converse(client)
    with (
        console.status("The same turns with the cache off ..."),
        _server(model, home, "--no-cache") as client,
    ):
        cold = _converse(client, replies=[r.text for r in warm])
    rows = [Turn(*pair).row() for pair in zip(warm, cold, strict=True)]
    if as_json:
        print(json.dumps({"model": model.name, "turns": rows}))
    else:
        _print(model.name, rows)


def _print(name: str, rows: Sequence[dict[str, float | int | bool]]) -> None:
    heads = ("turn", "prompt", "cached", "prefilled", "TTFT warm", "TTFT cold", "ratio")
    table = Table(title=f"{name}: ten turns, cache on and off")
    for head in heads:
        table.add_column(head, justify="right")
    for i, row in enumerate(rows, 1):
        table.add_row(
            str(i),
            f"{row['prompt_tokens']:,}",
            f"{row['cached_tokens']:,}",
            f"{row['prefilled_tokens']:,}",
            f"{row['ttft_warm_s'] * 1000:,.0f} ms",
            f"{row['ttft_cold_s'] * 1000:,.0f} ms",
            f"{row['ratio']:.1f}x",
        )
    console = Console()
    console.print(table)
    n_same = sum(bool(row["same_answer"]) for row in rows)
    read = sum(row["prefilled_tokens"] for row in rows)
    asked = sum(row["prompt_tokens"] for row in rows)
    console.print(
        f"Read {read:,} of {asked:,} prompt tokens; {n_same} of {len(rows)} answers equal."
    )


def _converse(client: Client, replies: Sequence[str] | None = None) -> list[Reply]:
    """Ten turns. `replies` are put into the history in place of the answers, where given."""
    model = client.model()
    client.chat([{"role": "user", "content": "Hi"}], model=model, max_tokens=2, temperature=0)
    messages: list[Json] = [{"role": "system", "content": _SYSTEM}]
    answers: list[Reply] = []
    for i, text in enumerate(_TURNS):
        messages.append({"role": "user", "content": text})
        reply = client.chat(messages, model=model, max_tokens=16, temperature=0)
        answers.append(reply)
        said = reply.text if replies is None else replies[i]
        messages.append({"role": "assistant", "content": said})
    return answers


@contextmanager
def _server(model: Path, home: Path, *flags: str) -> Iterator[Client]:
    """A server of our own on a free port, and a client of it; ended on the way out."""
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0", *flags]
    command += ["--host", "127.0.0.1", "--config", os.devnull]  # none of the user's own settings
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=_environment(home),
        )
        try:
            client = Client(_wait_ready(child, log), None)
            try:
                yield client
            finally:
                client.close()
        finally:
            _end(child)


def _environment(home: Path) -> dict[str, str]:
    """Ours less the user's own settings, which would change what the demo shows."""
    settings = {f"EVERWARM_{f.name.upper()}" for f in fields(Settings)}
    env = {name: value for name, value in os.environ.items() if name not in settings}
    return env | {"EVERWARM_HOME": str(home), "PYTHONUNBUFFERED": "1"}


def _wait_ready(child: subprocess.Popen[str], log: IO[str]) -> str:
    """The address that the child prints when it is ready."""
    assert child.stdout is not None
    timer = threading.Timer(_START_S, child.kill)
    timer.start()
    try:
        for line in child.stdout:
            if found := re.search(r" at (http://\S+?)/v1\b", line):
                return found[1]
    finally:
        timer.cancel()
    child.wait(_STOP_S)
    log.seek(0)
    why = (log.read().strip().splitlines() or ["it printed nothing"])[-1]
    raise EngineError(f"The demo's server did not start: {why}")


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()
