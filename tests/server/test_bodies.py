"""Bodies are read on the event loop, parsed beside it, and bounded together."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from starlette.requests import Request as HttpRequest

from everwarm.errors import Overloaded, RequestError
from everwarm.server.bodies import AT_ONCE, LONG, Bodies, ReturnsMemory


def request(*parts: bytes, ends: asyncio.Event | None = None) -> HttpRequest:
    """A request whose body comes in parts; the last one when `ends` is set."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        part = left.pop(0)
        if not left and ends is not None:
            await ends.wait()
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return HttpRequest({"type": "http", "headers": []}, receive)


def test_a_body_is_parsed_on_a_thread_that_is_not_the_event_loop_s() -> None:
    async def names() -> list[str]:
        bodies = Bodies(2 * LONG)
        sizes = (1, LONG)
        return [
            await bodies.parsed(request(b"x" * n), lambda _: threading.current_thread().name)
            for n in sizes
        ]

    short, long = asyncio.run(names())
    assert short.startswith("everwarm-bodies") and long.startswith("everwarm-long-bodies")


def test_a_short_body_does_not_wait_for_a_long_one() -> None:
    async def order() -> list[int]:
        bodies, told, free = Bodies(2 * LONG), list[int](), threading.Event()

        def parse(body: bytes) -> None:
            if len(body) == LONG:
                assert free.wait(30)
            told.append(len(body))

        long = asyncio.ensure_future(bodies.parsed(request(b"x" * LONG), parse))
        await asyncio.sleep(0)
        await bodies.parsed(request(b"x"), parse)
        free.set()
        await long
        return told

    assert asyncio.run(order()) == [1, LONG]


def test_a_refusal_of_the_parser_reaches_the_caller() -> None:
    def parse(_: bytes) -> None:
        raise RequestError("No.", param="x")

    with pytest.raises(RequestError, match="No"):
        asyncio.run(Bodies(10).parsed(request(b"x"), parse))


def test_all_bodies_together_are_bounded_and_room_comes_back() -> None:
    async def run() -> None:
        bodies, ends = Bodies(10), asyncio.Event()
        waiting = [
            asyncio.ensure_future(bodies.parsed(request(b"x" * 10, b"", ends=ends), len))
            for _ in range(AT_ONCE)
        ]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await bodies.parsed(request(b"x"), len)
        ends.set()
        assert await asyncio.gather(*waiting) == [10] * AT_ONCE
        assert await bodies.parsed(request(b"x"), len) == 1

    asyncio.run(run())


def test_memory_is_given_back_behind_a_long_body_only() -> None:
    class Counted(Bodies):
        n_trims = 0

        def trim_later(self) -> None:
            self.n_trims += 1

    async def run(nbytes: int) -> int:
        bodies = Counted(2 * LONG)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await bodies.parsed(HttpRequest(scope, receive), len)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"x" * nbytes}

        async def send(message: Any) -> None: ...

        await ReturnsMemory(app, bodies)({"type": "http", "headers": []}, receive, send)
        return bodies.n_trims

    assert (asyncio.run(run(1)), asyncio.run(run(LONG))) == (0, 1)
