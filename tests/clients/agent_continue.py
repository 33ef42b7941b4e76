"""Continue: `cn -p`."""

from __future__ import annotations

from agents import Agent, Kind, Place


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["--auto", *(["--resume"] if kind == "next" else []), "-p", *messages]


AGENT = Agent(ask=_ask, env={"CONTINUE_TELEMETRY_ENABLED": "0"})
