"""What a wire format is, to the server: a way to read bodies, and to spell events and errors.

Streamed and unstreamed answers are made of the same events by the same encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from everwarm.events import Event, Progress
from everwarm.request import Request
from everwarm.wire.stored_items import StoredItem

Chunk = dict[str, Any]
Error = tuple[int, Chunk, dict[str, str]]
"""Status, body and extra headers."""


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in everything that an answer says. `created` is unix seconds.

    `caches`: whether what is read stays warm.
    """

    id: str
    model: str
    created: int
    caches: bool = True


class Encoder(Protocol):
    """Says one turn's events in a format's words. Belongs to one answer."""

    def chunks(self, event: Event) -> list[Chunk]:
        """What an event becomes; nothing for most `Progress`."""

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """Real events that say nothing: some clients do not count comments as life."""

    def failed(self, error: Exception) -> list[Chunk]:
        """What ends a stream that cannot go on."""

    def fold(self, events: Iterable[Event]) -> Chunk:
        """The one response of a whole turn's events."""


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed body: what is asked, and how the answer is to be sent.

    `others`: the same request with each further prompt of a list. `stored_input`: what is stored
    of the request with its answer; None: nothing is. `session`: what the client calls the
    conversation.
    """

    request: Request
    stream: bool
    encoder: Callable[[Head], Encoder]
    others: tuple[Request, ...] = ()
    stored_input: tuple[StoredItem, ...] | None = None
    session: str | None = None

    @property
    def prompts(self) -> tuple[Request, ...]:
        """A request for each prompt."""
        return (self.request, *self.others)

    @property
    def n_choices(self) -> int:
        """How many replies are asked for in all."""
        return len(self.prompts) * self.request.samples


@dataclass(frozen=True, slots=True)
class Format:
    """One way to talk to this server. `prefix` begins the ids of its answers."""

    prefix: str
    parse: Callable[[bytes, str], ParsedRequest]
    frame: Callable[[Mapping[str, Any]], bytes]
    end: bytes
    error: Callable[[Exception], Error]


def progress_field(progress: Progress | None) -> Chunk:
    """everwarm's own field of a sign of life: how far the prompt is read."""
    if progress is None:
        return {}
    done = {"done": progress.done, "total": progress.total, "cached": progress.cached}
    return {"everwarm": {"progress": done}}
