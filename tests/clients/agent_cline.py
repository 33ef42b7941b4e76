"""Cline: `cline --json`. It leaves a daemon, and resumes only in its terminal interface."""

from __future__ import annotations

from agents import Agent, Kind, Place, call


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["--json", *messages]


AGENT = Agent(
    shell=lambda command: call("run_commands", commands=[command]),
    ask=_ask,
    env={"CLINE_NO_AUTO_UPDATE": "1", "CLINE_TELEMETRY_DISABLED": "1"},
    kinds=frozenset(("first",)),
    daemon=".cline/data/locks/hub/production.json",
)
