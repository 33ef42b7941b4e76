"""One request and what was said to it, kept until somebody has written it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from everwarm.server.record import Trace
from everwarm.server.refusals import client_of
from everwarm.wire.choices import ChoiceEvent
from everwarm.wire.format import ParsedRequest

NAMES: Final = ("x-session-id", "x-claude-code-session-id")


@dataclass(slots=True)
class Exchange:
    """A request, its answer as far as it is written, and what the client says of itself.

    `traces`: one for each turn, where a recorder is to write them down. Live: event loop only.
    """

    headers: Mapping[str, str]
    asked: ParsedRequest | None = None
    said: list[ChoiceEvent] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)

    def take(self, said: ChoiceEvent) -> None:
        """Keep what was said, where a recorder is to write it down."""
        if self.traces:
            self.said.append(said)

    @property
    def name(self) -> str | None:
        """What the client calls the conversation."""
        given = next((v for n in NAMES if (v := self.headers.get(n))), None)
        return given[:256] if given else self.asked.session if self.asked else None

    @property
    def client(self) -> str | None:
        """The program that sent the request."""
        return client_of(self.headers.get("user-agent", ""))


class Recorder(Protocol):
    """Writes exchanges down behind the answer: `chat/recorder.py`."""

    def record(self, exchange: Exchange) -> None:
        """Returns at once; never raises."""
