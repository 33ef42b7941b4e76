"""aider: `aider --message`. It has no tools: what it is to change, the model writes as text."""

from __future__ import annotations

from agents import Agent, Kind, Place

_QUIET = ["--yes-always", "--no-check-update", "--no-show-release-notes", "--no-gitignore"]


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    how = ["--restore-chat-history"] if kind == "next" else []
    return [*_QUIET, "--no-auto-commits", "--analytics-disable", *how, "--message", *messages]


AGENT = Agent(ask=_ask, shell=None, kinds=frozenset(("first", "next")), edits=True)
