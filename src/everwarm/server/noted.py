"""Conversations that come through the client APIs, listed as sessions too.

A client sends its whole history with each request; here only what is new in it is written, behind
the reply, on the history's writer thread. Who asks waits for none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final

from everwarm.history import recorded
from everwarm.history.database import Database
from everwarm.history.recorded import Turn
from everwarm.server.record import Trace
from everwarm.server.refusals import client_of
from everwarm.wire.choices import ChoiceEvent
from everwarm.wire.format import Asked, reply_of

NAMES: Final = ("x-session-id", "x-claude-code-session-id")


@dataclass(slots=True)
class Noted:
    """One answer in the making, and what its client says of itself.

    `traces`: one for each turn, where they are to be written down.
    """

    headers: Mapping[str, str]
    asked: Asked | None = None
    said: list[ChoiceEvent] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)

    def take(self, said: ChoiceEvent) -> None:
        """Keep what was said, where it is to be written down."""
        if self.traces:
            self.said.append(said)

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
        """Write the turns of a conversation down. Those that were refused, or have no messages,
        are not."""
        asked = noted.asked
        if asked is None or not asked.request.messages:
            return
        for index, trace in enumerate(noted.traces):
            if trace.tokens and trace.record is not None:
                record = asdict(trace.record)
                write = partial(_write, noted=noted, asked=asked, index=index, record=record)
                self._db.submit(write)


def _write(
    db: recorded.Connection, noted: Noted, asked: Asked, index: int, record: dict[str, object]
) -> None:
    trace, request = noted.traces[index], asked.request
    turn = Turn(
        caller=request.namespace,
        name=f"id:{noted.name}" if noted.name else f"thread:{trace.thread}",
        client=noted.client,
        messages=trace.messages,
        reply=reply_of(said.event for said in noted.said if said.index == index),
        record=record,
        thread=trace.thread,
        reply_id=trace.reply,
        tokens=trace.tokens,
    )
    recorded.write(db, turn)
