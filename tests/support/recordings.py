"""A made-up coding agent, recorded: what real ones do to the history that they send back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SYSTEM = "You look after a small garden's computer. Answer briefly, and read before you write."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": about,
            "parameters": {"type": "object", "properties": {"bed": {"type": "string"}}},
        },
    }
    for name, about in (("look", "Shows a bed."), ("water", "Waters a bed."))
]
NOTE = "(Two sprinklers run. Nothing else is going on.)"
"""The throw-away message that one habit puts at the end of each request."""


@dataclass(frozen=True)
class Habits:
    """What a client does to a reply before it sends it back, and puts behind it."""

    sends_reasoning: bool = True
    trims_text: bool = False
    strips_ids: bool = False
    note: bool = False


@dataclass
class Recorder:
    """Writes the requests of one client down, as they would have been captured."""

    habits: Habits
    lines: list[dict[str, Any]] = field(default_factory=list)

    def ask(
        self, phase: str, history: list[dict[str, Any]], text: str, *beds: str
    ) -> list[dict[str, Any]]:
        """One request, answered with `text` and a call for each bed; the history behind it."""
        n = len(self.lines) + 1
        thought = f"Thought {n}: the beds are wet on Mondays.\n"
        calls = [
            {"id": f"call_{n:04x}_{i}", "name": "look", "arguments": f'{{ "bed" : "{bed}" }}'}
            for i, bed in enumerate(beds)
        ]
        extra = [{"role": "user", "content": NOTE}] if self.habits.note else []
        body = {"model": "garden", "messages": [*history, *extra], "tools": TOOLS, "stream": True}
        reply = {"text": text, "thinking": thought, "calls": calls}
        path = "/v1/chat/completions"
        self.lines.append({"seq": n, "phase": phase, "path": path, "body": body, "reply": reply})
        return [*history, self._echo(text, thought, calls), *self._results(n, calls)]

    def write(self, path: Path) -> Path:
        """The recording as a file; what a request shares with the one before is folded."""
        folded = []
        for before, line in zip([None, *self.lines], self.lines, strict=False):
            body = dict(line["body"])
            if before is not None:
                body["tools"] = {"$same": before["seq"]}
                pairs = zip(before["body"]["messages"], body["messages"], strict=False)
                n = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
                shared = n if n is not None else len(before["body"]["messages"])
                fold = {"$messages_of": before["seq"], "first": shared}
                body["messages"] = [fold, *body["messages"][shared:]]
            folded.append(json.dumps({**line, "body": body}))
        path.write_text("\n".join(folded) + "\n")
        return path

    def _echo(self, text: str, thought: str, calls: list[dict[str, str]]) -> dict[str, Any]:
        said: dict[str, Any] = {"role": "assistant"}
        said["content"] = text.strip() if self.habits.trims_text else text or None
        if self.habits.sends_reasoning:
            said["reasoning_content"] = thought
        if calls:
            said["tool_calls"] = [
                {
                    "id": self._id(c["id"]),
                    "type": "function",
                    "function": {"name": c["name"], "arguments": _compact(c["arguments"])},
                }
                for c in calls
            ]
        return said

    def _results(self, n: int, calls: list[dict[str, str]]) -> list[dict[str, Any]]:
        return [
            {"role": "tool", "tool_call_id": self._id(c["id"]), "content": f"Bed {n}.{i} is dry."}
            for i, c in enumerate(calls)
        ]

    def _id(self, call_id: str) -> str:
        return call_id.replace("_", "") if self.habits.strips_ids else call_id


def _compact(arguments: str) -> str:
    return json.dumps(json.loads(arguments), separators=(",", ":"))


def session(habits: Habits) -> Recorder:
    """Two turns, a fork of the second, a session in between, and the first one resumed."""
    r = Recorder(habits)
    head = [{"role": "system", "content": SYSTEM}]
    start = r.ask("t1", [*head, _user("How are the beds?")], "\n\nI look first.\n\n", "north")
    start = r.ask("t1", start, "Now two at once. ", "east", "west")
    start = r.ask("t1", start, "\n\nAll of them are dry.\n")
    second = r.ask("t2", [*start, _user("Water the north bed.")], "", "north")
    second = r.ask("t2", second, "It is wet now.\n")
    fork = r.ask("t3-fork", [*start, _user("No: rather the pond.")], "", "pond")
    r.ask("t3-fork", fork, "The pond is full.")
    r.ask("t4-other", [*head, _user("Is there rain tomorrow?")], "It may be.")
    third = r.ask("t5-resume", [*second, _user("And the roses?")], "", "roses")
    r.ask("t5-resume", third, "They thrive.")
    return r


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}
