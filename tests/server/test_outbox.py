"""Outputs cross from the engine's thread to the event loop, and none of them waits for the next."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

import pytest

from everwarm.job import Prefilled
from everwarm.server.outbox import Outbox

PLACES = 8
"""More than two calls of `put` have lines."""


class _Between:
    """Lets the event loop run between chosen lines of `put`, as another thread's turn would."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chosen: int) -> None:
        self._loop, self._chosen, self._n = loop, chosen, 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not Outbox.put.__code__:
            return None
        if event == "line":
            if self._chosen >> self._n & 1:
                run_ready(self._loop)
            self._n += 1
        return self


def run_ready(loop: asyncio.AbstractEventLoop) -> None:
    """Let everything on the loop go on until it waits."""
    for _ in range(8):
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.mark.parametrize("chosen", range(1 << PLACES))
def test_no_output_is_left_lying_wherever_the_loop_takes_its_turn(chosen: int) -> None:
    loop = asyncio.new_event_loop()
    got: list[object] = []

    async def read(outbox: Outbox) -> None:
        while True:
            got.append(await outbox.get())

    async def made() -> Outbox:
        return Outbox()

    outbox = loop.run_until_complete(made())
    reader = loop.create_task(read(outbox))
    run_ready(loop)
    usual = sys.gettrace()
    sys.settrace(_Between(loop, chosen))
    try:
        outbox.put(Prefilled(1, 2))
        outbox.put(Prefilled(2, 2))
    finally:
        sys.settrace(usual)
    run_ready(loop)
    reader.cancel()
    run_ready(loop)
    loop.close()
    assert got == [Prefilled(1, 2), Prefilled(2, 2)]


def test_an_output_for_a_loop_that_has_ended_is_dropped() -> None:
    async def made() -> Outbox:
        return Outbox()

    outbox = asyncio.run(made())
    outbox.put(Prefilled(1, 2))
    outbox.put(Prefilled(2, 2))
