"""OpenClaw: `openclaw agent --local`, one session id. It has no fork from the command line."""

from __future__ import annotations

from agents import Agent, Kind, Place, call


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    (message,) = messages
    return ["agent", "--local", "--session-id", "walk", "-m", message]


AGENT = Agent(
    shell=lambda command: call("exec", command=command),
    ask=_ask,
    env={"OPENCLAW_NO_AUTO_UPDATE": "1"},
    kinds=frozenset(("first", "next")),
    rereads=True,
    workspace=".openclaw/workspace",
)
