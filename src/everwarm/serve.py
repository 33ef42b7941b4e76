"""The composition root: the only place that knows the core and its wings together.

It puts one server together, starts the engine and the HTTP server, and ends both cleanly.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn

from everwarm.chat import openapi as chat_openapi
from everwarm.chat.dashboard import Board
from everwarm.chat.pages import Pages, page_or
from everwarm.chat.recorder import SessionRecorder
from everwarm.chat.routes import SessionRoutes
from everwarm.chat.session_store import SessionStore
from everwarm.chat.session_turns import SessionTurns
from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.errors import EverwarmError
from everwarm.history.database import Database
from everwarm.history.reply_table import ReplyTable
from everwarm.job import Engine
from everwarm.replies import ReplyStore
from everwarm.server.answer import namespace_of
from everwarm.server.app import Core
from everwarm.server.descriptors import BACKLOG, QUEUE, LoopErrors, n_connections, raise_limit
from everwarm.server.guard import Guard, is_loopback
from everwarm.server.protocol import Connections, LimitedProtocol
from everwarm.wire import openapi

log = logging.getLogger("everwarm.server")


def serve(settings: Settings, model_path: str) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    settings = _guarded(settings)
    logging.basicConfig(level=settings.log_level.upper(), format="%(message)s", stream=sys.stderr)
    allowed = raise_limit()
    listening = _listen(settings)
    if listening is None:
        return 1
    # Imported here: it loads MLX, which nothing before needs.
    from everwarm.engine.thread import EngineThread

    history = Database(settings.home / "history.db")
    if settings.remember or settings.record:
        history.open()
    engine = EngineThread.start(model_path, settings)
    store = ReplyTable(history, engine.codec.fingerprint) if settings.remember else None
    try:
        app = create_app(engine, engine.codec, settings, store, history)
    except EverwarmError:  # the chat template cannot be used
        engine.stop()
        history.close()
        raise
    _settle_interpreter()
    config = uvicorn.Config(
        app,
        http=partial(LimitedProtocol, all=Connections(n_connections(allowed))),  # type: ignore[arg-type]
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
    )
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    server = _Server(config, f"everwarm serves {engine.model.id} at http://{name}:{port}/v1")
    try:
        server.run(sockets=[listening])
    finally:
        is_ended = engine.stop()
        history.close()
    if not is_ended:
        _leave_behind()
    return 0


def create_app(
    engine: Engine,
    codec: Codec,
    settings: Settings,
    store: ReplyStore | None = None,
    history: Database | None = None,
) -> Guard:
    """The whole HTTP side of one loaded model. `store`: where replies
    outlive the process.

    `history`: the database of sessions; None: one in the home directory, made at first use.
    """
    core = Core.start(engine, codec, settings, store)
    database = history or Database(settings.home / "history.db")
    recorder = SessionRecorder(history) if history and settings.record else None
    served = core.endpoints(database, recorder)
    sessions, pages = SessionStore(database), Pages()
    turns = SessionTurns(sessions, core.turns, namespace_of(settings))
    chat = {
        **SessionRoutes(turns, core.bodies).endpoints(),
        **Board(core.turns, sessions, core.bodies).endpoints(),
        "/": page_or(pages.chat, served["/"]),
        "/dashboard": pages.dashboard,
        "/web/{path:path}": pages.file,
    }
    return core.app({**served, **chat}, openapi.CONTENTS | chat_openapi.CONTENTS)


def _leave_behind() -> NoReturn:
    """End the process although a long step or a disk that hangs has not ended.

    The interpreter would wait for the disk's threads, and MLX aborts where its thread still runs.
    """
    log.warning("The engine did not stop in time; what was not on disk yet is lost.")
    logging.shutdown()
    sys.stdout.flush()
    os._exit(1)


def _guarded(settings: Settings) -> Settings:
    """Give an address that others can reach a key: the one that was set, or a new one."""
    if is_loopback(settings.host) or settings.api_key:
        return settings
    key = "ew-" + secrets.token_urlsafe(24)
    print(
        f"Others can reach --host {settings.host}, so callers need this API key, which is good "
        f"until the server ends: {key}\nSet EVERWARM_API_KEY for a lasting one.",
        file=sys.stderr,
        flush=True,
    )
    return replace(settings, api_key=key)


def _settle_interpreter() -> None:
    """Remove two pauses before a first token.

    A full garbage collection would walk some 10^5 objects of the libraries, which stay anyway. And
    the event loop gets its turn between two engine steps after 1 ms instead of 5.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.001)


class _Server(uvicorn.Server):
    """A uvicorn server whose clean stop is exit code 0; uvicorn raises the signal again."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Print that we are ready only once our signal handlers are installed."""
        asyncio.get_running_loop().set_exception_handler(LoopErrors())
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(QUEUE)  # uvicorn's `backlog` bounds a round, and set this queue too
        print(self._ready, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket | None:
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
        return None
    sock.listen(128)
    return sock
