"""Cline: `cline --json`. It leaves a daemon, which ends with its process group."""

from __future__ import annotations

from agents import Agent, Kind, Place


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["--json", *messages]


AGENT = Agent(ask=_ask, env={"CLINE_NO_AUTO_UPDATE": "1", "CLINE_TELEMETRY_DISABLED": "1"})
