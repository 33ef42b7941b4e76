"""pi: `pi -p`, several messages in one process, continued, and forked by its file."""

from __future__ import annotations

from agents import Agent, Kind, Place, call


def _ask(kind: Kind, messages: list[str], place: Place) -> list[str]:
    if kind == "fork":
        files = (place.home / ".pi").rglob("*.jsonl")
        return ["-p", "--fork", str(max(files, key=lambda f: f.stat().st_mtime)), *messages]
    return ["-p", *(["--continue"] if kind == "next" else []), *messages]


AGENT = Agent(
    shell=lambda command: call("bash", command=command),
    ask=_ask,
    env={"PI_OFFLINE": "1", "PI_TELEMETRY": "0"},
    takes_many=True,
)
