"""The socket that the server listens on, and uvicorn's server on it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from everwarm.config import Settings
from everwarm.server.descriptors import BACKLOG, QUEUE, LoopErrors, n_connections
from everwarm.server.protocol import Connections, LimitedProtocol

GRACE_S: Final = 3
"""How long requests may go on once the server is told to end."""


def listen(settings: Settings) -> socket.socket | None:
    """A socket that takes connections; None, and a sentence on stderr, where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's delay off only for sockets whose protocol is named; with it on, a first
    # token behind quickly sent headers waits up to 40 ms for the client's acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host.strip("[]"), settings.port))
    except OSError as e:
        print(
            f"Port {settings.port} on {settings.host} cannot be used ({e.strerror}). "
            "Another server may hold it; choose one with --port.",
            file=sys.stderr,
        )
        sock.close()
        return None
    sock.listen(128)
    return sock


def url_of(listening: socket.socket) -> str:
    """Where it listens, without a path."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer(uvicorn.Server):
    """A uvicorn server whose clean stop is exit code 0; uvicorn raises the signal again.

    `on_listening` is called on the event loop once requests are taken and our signal handlers are
    installed. `end_now` is called in the signal's handler when a second interrupt comes: asyncio
    waits for open connections from Python 3.12 on, whatever uvicorn is told.
    """

    def __init__(
        self,
        app: ASGIApp,
        allowed: int,
        on_listening: Callable[[], None],
        end_now: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(LimitedProtocol, all=Connections(n_connections(allowed))),  # type: ignore[arg-type]
                backlog=BACKLOG,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._on_listening = on_listening
        self._end_now = end_now

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        asyncio.get_running_loop().set_exception_handler(LoopErrors())
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(QUEUE)  # uvicorn's `backlog` bounds a round, and set this queue too
        self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit and sig == signal.SIGINT:
            self._end_now()
        self.should_exit = True
