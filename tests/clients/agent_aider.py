"""aider: `aider --message`. It has no tools."""

from __future__ import annotations

from agents import Agent, Kind, Place

_QUIET = ["--yes-always", "--no-check-update", "--no-show-release-notes", "--no-gitignore"]


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return [*_QUIET, "--message", *messages]


AGENT = Agent(ask=_ask)
