"""Qwen Code: `qwen -p`, continued and forked."""

from __future__ import annotations

from agents import Agent, Kind, Place, call

_HOW: dict[Kind, list[str]] = {
    "first": [],
    "next": ["--continue"],
    "fork": ["--continue", "--fork-session"],
}


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["--yolo", *_HOW[kind], "-p", *messages]


AGENT = Agent(
    shell=lambda command: call("run_shell_command", command=command, is_background=False),
    ask=_ask,
    edits=True,
)
