"""Claude Code: `claude -p`, continued and forked."""

from __future__ import annotations

from agents import Agent, Kind, Place, call

_HOW: dict[Kind, list[str]] = {
    "first": [],
    "next": ["--continue"],
    "fork": ["--continue", "--fork-session"],
}


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["-p", *messages, "--allowedTools", "Bash,Read", *_HOW[kind]]


AGENT = Agent(
    shell=lambda command: call("Bash", command=command, description="Runs it."),
    ask=_ask,
    env={"DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1"},
)
