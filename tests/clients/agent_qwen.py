"""Qwen Code: `qwen -p`."""

from __future__ import annotations

from agents import Agent, Kind, Place


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    return ["--yolo", *(["--continue"] if kind == "next" else []), "-p", *messages]


AGENT = Agent(ask=_ask)
