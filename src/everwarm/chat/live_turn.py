"""A turn that outlives the connection which asked for it; others may follow it from its start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from everwarm.server.turn import Turn

SIGN_OF_LIFE: Final = b": alive\n\n"


class LiveTurn:
    """One turn of a session and all frames that it sent so far. Live: event loop only.

    `turn` is there from the start: it can be ended while what it needs is still being written.
    """

    def __init__(self, turn_id: str) -> None:
        self.turn = Turn(turn_id)
        self.task: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
        self._frames: list[bytes] = []
        self._changed = asyncio.Event()

    def push(self, *frames: bytes) -> None:
        """Send to all who follow."""
        self._frames.extend(frames)
        self._wake()

    def end(self) -> None:
        """Nothing more will come."""
        self.over.set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, every_s: float) -> AsyncIterator[bytes]:
        """All frames from the first on; a sign of life where none comes for `every_s` seconds."""
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
                    yield SIGN_OF_LIFE
