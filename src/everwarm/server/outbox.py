"""Carries a job's outputs from the engine's thread to the event loop: one wake-up per batch."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from everwarm.job import Output


class Outbox:
    """`put` on one thread, the engine's; `get` on the loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._outputs: deque[Output] = deque()
        self._ready = asyncio.Event()

    def put(self, output: Output) -> None:
        """Add an output. Where the loop has ended nobody reads it, and it is dropped."""
        # Looked at behind the append: the reader may take the output before this one at any time,
        # and sleeps only where it finds nothing. So whatever it leaves here alone wakes it up.
        self._outputs.append(output)
        if len(self._outputs) == 1:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ready.set)

    async def get(self) -> Output:
        """The next output, once there is one."""
        while not self._outputs:
            self._ready.clear()
            if not self._outputs:
                await self._ready.wait()
        return self._outputs.popleft()
