"""Streaming: events as they come, signs of life in between, and the client's disconnect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

from starlette.types import Receive, Send

from everwarm.events import Event, Started
from everwarm.server.ignored import header_of

T = TypeVar("T")
KEEPALIVE_S: Final = 10.0
"""Clients give up after 120 to 300 s of silence, and one event may take long to come."""


class ClientGone(Exception):
    """The client closed its connection."""


class Pace:
    """When the next sign of life is due: `every_s` after something was last sent."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._sent = clock()

    def sent(self) -> None:
        """Something went out."""
        self._sent = self._clock()

    @property
    def left(self) -> float:
        """Seconds until a sign of life is due."""
        return max(0.0, self._sent + self._every_s - self._clock())


async def watched(
    events: AsyncGenerator[T, None], receive: Receive, pace: Pace
) -> AsyncGenerator[T | None, None]:
    """Events as they come; None when a sign of life is due. Raises ClientGone at a disconnect.

    After None the caller tells `pace` that something was sent.
    """
    gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnect(receive))
    upcoming: asyncio.Future[Any] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait(
                {upcoming, gone}, timeout=pace.left, return_when=asyncio.FIRST_COMPLETED
            )
            if upcoming in done:
                try:
                    event = upcoming.result()
                except StopAsyncIteration:
                    return
                finally:
                    # An error holds this frame. Were the task still here, which holds the error,
                    # the request's texts would stay until the next full collection.
                    done, upcoming = set(), None
                yield event
            elif gone in done:
                raise ClientGone
            else:
                yield None
    finally:
        gone.cancel()
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class HttpResponse:
    """One HTTP response: whether its headers were sent, and when we last wrote to it.

    `kind`: its content type, once the headers were sent.
    """

    def __init__(self, send: Send, headers: dict[str, str], pace: Pace) -> None:
        self.send, self.headers, self.pace = send, headers, pace
        self.kind: str | None = None

    def heard(self, event: Event) -> None:
        """Note what the headers tell of an event, as long as they were not sent."""
        if isinstance(event, Started):
            self.headers |= header_of(event.ignored)

    async def start(self, kind: str) -> None:
        """Send the headers, once."""
        if self.kind is None:
            self.kind = kind
            head = {"content-type": kind, "cache-control": "no-cache"} | self.headers
            raw = [(k.encode(), v.encode()) for k, v in head.items()]
            await self.send({"type": "http.response.start", "status": 200, "headers": raw})

    async def write(self, body: bytes) -> None:
        """Send a part of the body, if there is anything in it."""
        if body:
            await self._send_body(body, more=True)
            self.pace.sent()

    async def end(self, body: bytes) -> None:
        """Send the last part of the body."""
        await self._send_body(body, more=False)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})
