"""Conversations that come through the client APIs, listed as sessions too.

A client sends its whole history with each request; here only what is new in it is written, behind
the reply, on the history's writer thread. Who asks waits for none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final

from everwarm.events import Event
from everwarm.history import recorded
from everwarm.history.database import Database
from everwarm.history.recorded import Turn
from everwarm.server.record import Trace
from everwarm.server.refusals import client_of
from everwarm.wire.format import Asked, reply_of

NAMES: Final = ("x-session-id", "x-claude-code-session-id")


@dataclass(slots=True)
class Noted:
    """One answer in the making, and what its client says of itself."""

    headers: Mapping[str, str]
    asked: Asked | None = None
    said: list[Event] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)

    @property
    def name(self) -> str | None:
        """What the client calls the conversation."""
        given = next((v for n in NAMES if (v := self.headers.get(n))), None)
        return given[:256] if given else self.asked.session if self.asked else None

    @property
    def client(self) -> str | None:
        """The program that asks."""
        return client_of(self.headers.get("user-agent", ""))


class Recorder:
    """Writes down what was answered. Lives on the event loop; returns at once."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def note(self, noted: Noted) -> None:
        """Write a turn of a conversation down. One that was refused, or has no messages, is not."""
        asked, trace = noted.asked, noted.trace
        if asked is None or not asked.request.messages or not trace.tokens or trace.record is None:
            return
        self._db.submit(partial(_write, noted=noted, asked=asked, record=asdict(trace.record)))


def _write(db: recorded.Connection, noted: Noted, asked: Asked, record: dict[str, object]) -> None:
    trace, request = noted.trace, asked.request
    turn = Turn(
        caller=request.namespace,
        name=f"id:{noted.name}" if noted.name else f"thread:{trace.thread}",
        client=noted.client,
        messages=trace.messages,
        reply=reply_of(noted.said),
        record=record,
        thread=trace.thread,
        reply_id=trace.reply,
        tokens=trace.tokens,
    )
    recorded.write(db, turn)
