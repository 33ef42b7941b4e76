"""Carries a job's outputs from the engine's thread to the event loop: one wake-up per batch."""

from __future__ import annotations

import asyncio
from collections import deque

from everwarm.job import Output


class Outbox:
    """`put` on the engine's thread, `get` on the loop that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._outputs: deque[Output] = deque()
        self._ready = asyncio.Event()

    def put(self, output: Output) -> None:
        was_empty = not self._outputs
        self._outputs.append(output)
        if was_empty and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)

    async def get(self) -> Output:
        while not self._outputs:
            self._ready.clear()
            if not self._outputs:
                await self._ready.wait()
        return self._outputs.popleft()
