"""Request bodies: read on the event loop, parsed on threads of their own.

Long bodies have a thread to themselves, so that a short one never waits behind them. The bodies
that are being read are bounded in bytes together: a request beyond that is answered with 503. The
memory of a long body goes back to the system once its request is answered.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from everwarm.errors import Overloaded, RequestError

T = TypeVar("T")
BODY_S: Final = 120.0
LONG: Final = 2**18
"""A body of so many bytes is parsed on the thread for long ones."""
AT_ONCE: Final = 4
"""How many bodies of the largest size may be read at the same time."""
TRIM_AFTER_S: Final = 1.0
_IS_LONG: Final = "everwarm.is_long"
"""In a request's scope: whether its body was a long one."""


class Bodies:
    """Reads and parses bodies. Lives on the event loop."""

    def __init__(self, max_body: int) -> None:
        self._max_body, self._room = max_body, AT_ONCE * max_body
        self._short = ThreadPoolExecutor(1, thread_name_prefix="everwarm-bodies")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="everwarm-long-bodies")
        self._trim: asyncio.TimerHandle | None = None

    async def parsed(self, http: HttpRequest, parse: Callable[[bytes], T]) -> T:
        """Read a request's body, and parse it on a thread. Raises what `parse` raises, RequestError
        as `read_body` does, and Overloaded."""
        async with self._reserved() as reserve:
            body = await read_body(http, self._max_body, reserve=reserve)
            http.scope[_IS_LONG] = len(body) >= LONG
            pool = self._long if len(body) >= LONG else self._short
            return await asyncio.get_running_loop().run_in_executor(pool, parse, body)

    def trim_later(self) -> None:
        """Give memory back once no request with a long body has ended for a moment."""
        loop = asyncio.get_running_loop()
        if self._trim is not None:
            self._trim.cancel()
        self._trim = loop.call_later(
            TRIM_AFTER_S, lambda: loop.run_in_executor(self._long, return_memory)
        )

    @asynccontextmanager
    async def _reserved(self) -> AsyncIterator[Callable[[int], None]]:
        """Room for one body, taken as its bytes arrive and given back at the end."""
        taken = 0

        def reserve(nbytes: int) -> None:
            nonlocal taken
            if nbytes > self._room:
                raise Overloaded("The bodies of other requests are being read. Try again.")
            self._room -= nbytes
            taken += nbytes

        try:
            yield reserve
        finally:
            self._room += taken


class ReturnsMemory:
    """ASGI middleware: after a request with a long body, gives its memory back to the system."""

    def __init__(self, app: ASGIApp, bodies: Bodies) -> None:
        self._app, self._bodies = app, bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope.get(_IS_LONG):
                self._bodies.trim_later()


async def read_body(
    http: HttpRequest,
    max_body: int,
    *,
    within_s: float = BODY_S,
    reserve: Callable[[int], None] = lambda nbytes: None,
) -> bytes:
    """Read the body. Raises RequestError: 413 as soon as it is known to be too large, 408 where it
    does not arrive in time. `reserve` is told of every byte before it is kept."""
    said = http.headers.get("content-length", "")
    body = bytearray()
    if said.isascii() and said.isdecimal() and int(said[:20]) > max_body:
        raise _bad_body(413, f"The body may have {max_body:,} bytes.")
    try:
        async with asyncio.timeout(within_s):
            async for part in http.stream():
                if len(body) + len(part) > max_body:
                    raise _bad_body(413, f"The body may have {max_body:,} bytes.")
                reserve(len(part))
                body += part
    except TimeoutError:
        raise _bad_body(408, f"The body did not come within {within_s:.0f} seconds.") from None
    return bytes(body)


def _bad_body(status: int, message: str) -> RequestError:
    error = RequestError(message, param="body")
    error.status = status
    return error


def return_memory() -> None:
    """Let the allocator give free memory back to the system; glibc keeps it otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
