"""Codex: `codex exec`, resumed and forked by the id that it prints."""

from __future__ import annotations

import re

from agents import Agent, Kind, Place, call


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    free = ["--dangerously-bypass-approvals-and-sandbox"]
    how = {
        "first": lambda: [],
        "next": lambda: ["resume", "--last"],
        "fork": lambda: ["fork", re.findall(r"session id: (\S+)", place.output)[-1]],
    }
    return ["exec", *free, *how[kind](), *messages]


AGENT = Agent(shell=lambda command: call("exec_command", cmd=command), ask=_ask)
