"""Conversations that come through the client APIs, listed as sessions too.

A client sends its whole history with each request; here only what is new in it is written, behind
the reply, on the history's writer thread. Who asks waits for none of it.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from everwarm.chat import api_turns
from everwarm.chat.api_turns import ApiTurn
from everwarm.history.database import Connection, Database
from everwarm.server.exchange import Exchange
from everwarm.wire.format import ParsedRequest, reply_of


class SessionRecorder:
    """Writes down what was answered. Lives on the event loop; returns at once."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, exchange: Exchange) -> None:
        """Write the turns of a conversation down. Those that were refused, or have no messages,
        are not."""
        asked = exchange.asked
        if asked is None or not asked.request.messages:
            return
        for index, trace in enumerate(exchange.traces):
            if trace.tokens and trace.record is not None:
                record = asdict(trace.record)
                write = partial(_write, exchange=exchange, asked=asked, index=index, record=record)
                self._db.submit(write)


def _write(
    db: Connection,
    exchange: Exchange,
    asked: ParsedRequest,
    index: int,
    record: dict[str, object],
) -> None:
    trace, request = exchange.traces[index], asked.request
    turn = ApiTurn(
        caller=request.namespace,
        name=f"id:{exchange.name}" if exchange.name else f"thread:{trace.thread}",
        client=exchange.client,
        messages=trace.messages,
        reply=reply_of(said.event for said in exchange.said if said.index == index),
        record=record,
        thread=trace.thread,
        reply_id=trace.reply,
        tokens=trace.tokens,
    )
    api_turns.write(db, turn)
