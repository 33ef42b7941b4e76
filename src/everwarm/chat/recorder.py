"""Conversations that come through the client APIs, listed as sessions too.

A client sends its whole history with each request; here only what is new in it is written, behind
the reply, on the history's writer thread. Who asks waits for none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Final

from everwarm.chat import api_turns
from everwarm.chat.api_turns import ApiTurn
from everwarm.history.database import Database
from everwarm.server.refusals import client_of
from everwarm.server.turn import Turn
from everwarm.wire.format import ParsedRequest

SESSION_HEADERS: Final = ("x-session-id", "x-claude-code-session-id")


class SessionRecorder:
    """Writes down what was answered. Lives on the event loop; returns at once."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(
        self, asked: ParsedRequest, headers: Mapping[str, str], turns: Sequence[Turn]
    ) -> None:
        """Write the turns of a conversation down. Those that were refused, or have no messages,
        are not."""
        given = next((v for n in SESSION_HEADERS if (v := headers.get(n))), None)
        name = given[:256] if given else asked.session
        client = client_of(headers.get("user-agent", ""))
        for turn in turns:
            if turn.prompt is None or not turn.prompt.messages or turn.record is None:
                continue
            answered = ApiTurn(
                caller=asked.request.namespace,
                name=f"id:{name}" if name else f"thread:{turn.thread}",
                client=client,
                messages=turn.prompt.messages,
                reply=turn.reply,
                record=asdict(turn.record),
                thread=turn.thread,
                reply_id=turn.reply_id,
                tokens=turn.tokens,
            )
            self._db.submit(partial(api_turns.write, turn=answered))
