"""Continue: `cn -p`, resumed."""

from __future__ import annotations

from agents import Agent, Kind, Place, call


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["--auto", *(["--resume"] if kind == "next" else []), "-p", *messages]


AGENT = Agent(
    shell=lambda command: call("Bash", command=command),
    ask=_ask,
    env={"CONTINUE_TELEMETRY_ENABLED": "0"},
    kinds=frozenset(("first", "next")),
)
