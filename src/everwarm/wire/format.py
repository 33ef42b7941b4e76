"""What a wire format is to the server: a way to read bodies, and to spell events and errors.

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
    """What every chunk of an answer repeats. `created` is in unix seconds.

    `caches`: whether the prompt stays in the cache.
    """

    id: str
    model: str
    created: int
    caches: bool = True


class StreamEncoder(Protocol):
    """Says one turn's events in a format's words. Belongs to one answer."""

    def chunks(self, event: Event) -> list[Chunk]:
        """What an event becomes; mostly nothing for `Progress`."""

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """Empty events: some clients give up although comments arrive."""

    def failed(self, error: Exception) -> list[Chunk]:
        """What ends a failed stream."""

    def fold(self, events: Iterable[Event]) -> Chunk:
        """The one response of a whole turn's events, which end with `Finished`."""


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed body: the request, and how its answer is sent.

    `others`: the same request with each further prompt of a list. `stored_input`: the items that
    are stored with the answer; None where nothing is stored. `session`: the client's name of the
    conversation.
    """

    request: Request
    stream: bool
    encoder: Callable[[Head], StreamEncoder]
    others: tuple[Request, ...] = ()
    stored_input: tuple[StoredItem, ...] | None = None
    session: str | None = None

    @property
    def prompts(self) -> tuple[Request, ...]:
        """One request for each prompt."""
        return (self.request, *self.others)

    @property
    def n_choices(self) -> int:
        """How many replies the client wants in all."""
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
    """everwarm's own field in a keepalive: how far the prompt is read, and what is waited for."""
    if progress is None:
        return {}
    done = {"done": progress.done, "total": progress.total, "cached": progress.cached}
    waits = {"waits": progress.waits} if progress.waits else {}
    return {"everwarm": {"progress": done | waits}}
