"""Serve a model: listen at once, load on a thread beside it, and end all of it cleanly.

    main thread    listen -> HTTP, from `server/starting.py` at first
    loading        find the model -> the engine's process -> its text side -> the whole app -> ready

Nothing here imports MLX: the engine is a process of its own. Heavy imports happen while loading.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from everwarm.chat.pages import Pages, page_or
from everwarm.config import Settings
from everwarm.errors import EverwarmError, MissingMlx
from everwarm.server.descriptors import raise_limit
from everwarm.server.guard import Guard, is_loopback
from everwarm.server.listening import HttpServer, listen, url_of
from everwarm.server.starting import Starting, hello

if TYPE_CHECKING:
    from everwarm.history.database import Database
    from everwarm.supervisor.engine_process import EngineProcess

log = logging.getLogger("everwarm.server")
JOIN_S: Final = 2.0
"""What loading gets to end by itself; imports and downloads cannot be stopped."""


def serve(settings: Settings, find_model: Callable[[], str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code.

    `find_model` gives the model's directory or id, and may fetch it first. Raises EverwarmError
    where the model, or the history, cannot be used.
    """
    settings = _guarded(settings)
    logging.basicConfig(level=settings.log_level.upper(), format="%(message)s", stream=sys.stderr)
    allowed = raise_limit()
    listening = listen(settings)
    if listening is None:
        return 1
    pages = Pages()
    starting = Starting(
        settings.model_id or settings.model,
        {
            "/": page_or(pages.starting, hello),
            "/dashboard": pages.starting,
            "/web/{path:path}": pages.file,
        },
    )
    loading = Loading(settings, find_model, starting, url_of(listening))
    server = HttpServer(Guard(starting, settings), allowed, loading.start, _end_now)
    loading.on_failure = lambda: setattr(server, "should_exit", True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    try:
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is being done
        signal.signal(signal.SIGINT, _end_now)
        is_ended = loading.stop()
    if loading.error is not None and loading.has_failed:
        raise loading.error
    if not is_ended:
        log.warning("The engine did not stop in time; what was not on disk yet is lost.")
        _exit_now(1)
    if loading.is_alive:
        _exit_now(0)  # an import or a download cannot be stopped, and holds nothing worth keeping
    return 1 if loading.has_failed else 0


class Loading:
    """Loads on a thread of its own, and ends what it began. `start` and `stop`: the main thread.

    `error`: why there is nothing to serve, where that is the user's to put right.
    """

    def __init__(
        self, settings: Settings, find_model: Callable[[], str], starting: Starting, url: str
    ) -> None:
        self._settings, self._find_model = settings, find_model
        self._starting, self._url = starting, url
        self._history: Database | None = None
        self._engine: EngineProcess | None = None
        self._lock = threading.Lock()  # nothing is begun once we are stopping
        self._is_stopping = False
        self._thread = threading.Thread(target=self._main, name="everwarm-loading", daemon=True)
        self.on_failure: Callable[[], None] = lambda: None
        self.error: EverwarmError | None = None
        self.has_failed = False

    def start(self) -> None:
        """Begin to load."""
        log.info("The model is being loaded; %s shows how far it is.", self._url)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it is still at work."""
        return self._thread.is_alive()

    def stop(self) -> bool:
        """End the engine, and close the history. False: the engine had to be killed."""
        with self._lock:
            self._is_stopping = True
        is_ended = self._engine.stop() if self._engine else True
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        if self._history is not None:
            self._history.close()
        return is_ended

    def _main(self) -> None:
        is_loaded = False
        try:
            is_loaded = self._load()
        except EverwarmError as e:
            self.error = e
            is_loaded = self._is_missing_mlx(e)
        finally:
            if not is_loaded:
                self.has_failed = not self._is_stopping
                self.on_failure()

    def _load(self) -> bool:
        """Load all of it. False: we were told to end before that."""
        self._starting.say("The model is being looked for. The first start fetches it, once.")
        path = self._find_model()
        # Imported here, while requests are taken already: these take seconds.
        from everwarm.history.database import Database
        from everwarm.models.found import find
        from everwarm.supervisor.engine_process import EngineProcess

        settings = self._settings
        found = find(path, model_id=settings.model_id, context_length=settings.context_length)
        named = replace(settings, model_id=found.info.id)
        engine = EngineProcess(str(found.directory), named, found.info)
        history = Database(settings.home / "history.db")
        with self._lock:
            if self._is_stopping:
                return False
            self._history, self._engine = history, engine
            engine.begin()  # it loads the weights beside what follows
        self._starting.say("The model is being loaded.")
        from everwarm.compose import create_app
        from everwarm.history.reply_table import ReplyTable
        from everwarm.text.load import text_of

        codec = text_of(found).codec
        if settings.remember or settings.record:
            history.open()
        store = ReplyTable(history, codec.fingerprint) if settings.remember else None
        app = create_app(engine, codec, settings, store, history)
        self._starting.go_on(app.app, engine)
        _settle_interpreter()
        return self._wait(engine)

    def _is_missing_mlx(self, error: EverwarmError) -> bool:
        """Whether nothing can be loaded for want of MLX: then the pages are served all the same,
        and say so."""
        is_missing = isinstance(error, MissingMlx)
        self._starting.give_up(error, is_missing=is_missing)
        if is_missing:
            log.error("%s", error.message)
        return is_missing

    def _wait(self, engine: EngineProcess) -> bool:
        """Wait for the engine, and say that all is ready."""
        engine.wait_ready()
        print(f"everwarm serves {engine.model.id} at {self._url}/v1", flush=True)
        return True


def _end_now(_signal: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """End without waiting for the engine, which notices, and ends by itself in a few seconds."""
    log.warning("Ended at once; what was not on disk yet may be lost.")
    _exit_now(1)


def _exit_now(code: int) -> NoReturn:
    """End the process without waiting for any thread."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


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
    the event loop gets its turn between two steps of other threads after 1 ms instead of 5.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.001)
