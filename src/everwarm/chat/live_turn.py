"""A turn that outlives the connection that started it; others may follow it from its beginning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from everwarm.server.turn import Turn

KEEPALIVE: Final = b": alive\n\n"


class LiveTurn:
    """One turn of a session, and all frames that it has sent. Live: event loop only.

    `turn` is there from the start: it can be ended while what it needs is still being written.
    """

    def __init__(self, turn_id: str) -> None:
        self.turn = Turn(turn_id)
        self.task: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
        self._frames: list[bytes] = []
        self._changed = asyncio.Event()

    def push(self, *frames: bytes) -> None:
        """Send frames to all who follow."""
        self._frames.extend(frames)
        self._wake()

    def end(self) -> None:
        """Tell all who follow that nothing more will come."""
        self.over.set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, every_s: float) -> AsyncIterator[bytes]:
        """All frames from the first on; a keepalive where none comes for `every_s` seconds."""
        n = 0
        while True:
            changed = self._changed
            if n < len(self._frames):
                yield b"".join(self._frames[n:])
                n = len(self._frames)
            elif self.over.is_set():
                return
            else:
                try:
                    await asyncio.wait_for(changed.wait(), every_s)
                except TimeoutError:
                    yield KEEPALIVE
