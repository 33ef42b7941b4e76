"""OpenCode: `opencode run`, continued and forked."""

from __future__ import annotations

from agents import Agent, Kind, Place, call

_HOW: dict[Kind, list[str]] = {
    "first": [],
    "next": ["--continue"],
    "fork": ["--continue", "--fork"],
}


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["run", *_HOW[kind], *messages]


AGENT = Agent(
    shell=lambda command: call("bash", command=command, description="Runs it."),
    ask=_ask,
    env={"OPENCODE_DISABLE_LSP_DOWNLOAD": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
)
