"""Send a turn's events while watching for the client's leaving, with a real event now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.types import Receive, Send

from everwarm.events import Event

KEEPALIVE_S: Final = 10.0


class ClientGone(Exception):
    """The client closed its connection."""


async def watched(
    events: AsyncIterator[Event], receive: Receive, *, every_s: float = KEEPALIVE_S
) -> AsyncIterator[Event | None]:
    """Events as they come; None after each silent `every_s`. Raises ClientGone at a disconnect."""
    gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnect(receive))
    upcoming: asyncio.Future[Any] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait(
                {upcoming, gone}, timeout=every_s, return_when=asyncio.FIRST_COMPLETED
            )
            if upcoming in done:
                arrived, upcoming = upcoming, None
                try:
                    yield arrived.result()
                except StopAsyncIteration:
                    return
            elif gone in done:
                raise ClientGone
            else:
                yield None
    finally:
        gone.cancel()
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_start(send: Send, headers: dict[str, str]) -> None:
    """The head of an event stream, at once, so that no client waits for headers."""
    head = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
    raw = [(k.encode(), v.encode()) for k, v in (head | headers).items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


async def send_body(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
