"""How many requests wait or run at a time, and the refusal of one more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from everwarm.errors import Overloaded


@dataclass(slots=True)
class Queue:
    """Lets so many requests wait or run, however many turns each has. Live: event loop only."""

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
