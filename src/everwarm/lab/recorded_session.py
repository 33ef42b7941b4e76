"""Recorded requests of a client: JSON lines, one exchange each, read back as they were sent.

A line has `seq`, `phase`, `path`, `body` and `reply` (`text`, `thinking`, `calls`), what the model
said then. Long recordings are folded: `{"$same": SEQ}` stands for the same field of request SEQ,
and a first list item `{"$messages_of": SEQ, "first": N}` for the first N messages of request SEQ.

Not here: sending them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everwarm.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A tool call that the recorded reply made. `arguments` is JSON text as it was written."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """What the model said, in no model's notation."""

    text: str
    thinking: str
    calls: tuple[RecordedCall, ...]

    def written(self) -> str:
        """The reply as a model of the Hermes kind writes it, Qwen's among them."""
        calls = "\n".join(
            f'<tool_call>\n{{"name": {json.dumps(c.name)}, "arguments": {c.arguments or "{}"}}}\n'
            "</tool_call>"
            for c in self.calls
        )
        thought = self.thinking.strip("\n")
        return (f"<think>\n{thought}\n</think>\n\n" if thought else "") + self.text + calls


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """One recorded request. Without a reply it asked for no tokens (counting them, say)."""

    seq: int
    phase: str
    path: str
    body: dict[str, Any]
    reply: RecordedReply | None


def exchanges(path: Path) -> Iterator[RecordedExchange]:
    """The exchanges of a recording, unfolded. Raises ConfigError where it is none."""
    done: dict[int, dict[str, Any]] = {}
    try:
        for line in path.read_text("utf-8").splitlines():
            read = json.loads(line)
            if not isinstance(read["body"], dict):
                continue
            body = {k: _unfold(k, v, done) for k, v in read["body"].items()}
            done[read["seq"]] = body
            yield RecordedExchange(
                read["seq"], read["phase"], read["path"], body, _said(read.get("reply"))
            )
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a recording of requests: {error!r}.") from None


def _unfold(name: str, value: Any, done: dict[int, dict[str, Any]]) -> Any:
    if isinstance(value, dict) and set(value) == {"$same"}:
        return done[value["$same"]][name]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        first = value[0]
        if "$messages_of" in first:
            return [*done[first["$messages_of"]][name][: first["first"]], *value[1:]]
    return value


def _said(reply: dict[str, Any] | None) -> RecordedReply | None:
    if reply is None:
        return None
    calls = (RecordedCall(c["id"], c["name"], c["arguments"]) for c in reply.get("calls") or ())
    return RecordedReply(reply.get("text") or "", reply.get("thinking") or "", tuple(calls))
