"""What stands between a turn's events and the bytes of an answer."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

from everwarm.errors import TooLong
from everwarm.events import Event, Started
from everwarm.server.stream import Pace, watched


class _Text:
    """Stands for a text of megabytes."""


def test_an_error_takes_its_requests_texts_with_it() -> None:
    seen: list[weakref.ref[Any]] = []

    async def refused() -> AsyncIterator[Event]:
        text = _Text()
        seen.append(weakref.ref(text))
        yield Started(1)
        raise TooLong("The prompt is too long.")

    async def connected() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def answer() -> str:
        try:
            async for _ in watched(refused(), connected, Pace(10.0)):
                pass
        except TooLong as e:
            return e.message
        return ""

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        assert asyncio.run(answer()) == "The prompt is too long."
        assert seen[0]() is None, "a cycle of references holds what the turn had"
    finally:
        if was_enabled:
            gc.enable()
