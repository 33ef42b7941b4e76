"""Carries a job's outputs from the engine's thread to the event loop, one wake-up for a batch."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from everwarm.job import Output


class Outbox:
    """A queue between two threads: the engine's calls `put`, the event loop that made it `get`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._outputs: deque[Output] = deque()
        self._ready = asyncio.Event()

    def put(self, output: Output) -> None:
        """Add an output. After the end of the loop nobody reads it, and it is dropped."""
        # The length is read after the append: the reader may take earlier outputs at any time, and
        # sleeps only where it finds none. So an output that is alone here has to wake it up.
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
