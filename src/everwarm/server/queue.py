"""Who is answered: turns on their way, and places for the requests that they are part of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from everwarm.errors import Overloaded


@dataclass(slots=True)
class RunningTurn:
    """A turn on its way, for `ps`. Whoever makes it may cancel it before it begins."""

    id: str
    is_cancelled: bool = False
    done: int = 0
    total: int = 0
    completion: int = 0


@dataclass(slots=True)
class Queue:
    """So many requests may wait or run, however many turns each has. Live: event loop only."""

    max_requests: int
    n_requests: int = 0

    @contextmanager
    def place(self) -> Iterator[object]:
        """A place for one request. Raises Overloaded where none is left."""
        if self.n_requests >= self.max_requests:
            raise Overloaded(f"{self.n_requests} requests are already waiting.")
        self.n_requests += 1
        try:
            yield self
        finally:
            self.n_requests -= 1
