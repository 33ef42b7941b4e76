"""Answers from the first moment on, while the model's text side and then its weights are loaded.

    /health, /ready, the starting page    at once, from here
    all else                              held until there is an app, then answered by it

A held request waits for `HOLD_S` at most, and is then answered with 503 and `Retry-After`: what
takes longer is a download. Once there is an app, requests wait in it for the engine, with its signs
of life. A client that does not want to wait says so: `Prefer: wait=0`, or how many seconds.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from everwarm import __version__
from everwarm.errors import EverwarmError
from everwarm.job import Engine, EngineHealth
from everwarm.server.engine_state import health_body, is_broken, not_yet, until_ready
from everwarm.server.guard import refuse
from everwarm.server.route_policy import Endpoint

HOLD_S: Final = 60.0
"""Clients give up after 120 s or more of silence."""
_LOOK_S: Final = 0.1
_PREFERRED = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})")
_OWN: Final = ("/health", "/ready", "/api/hello", "/api/version", "/", "/dashboard")


class Starting:
    """The ASGI app around the one that answers, which comes later.

    Live: event loop only, but for `say`, `give_up` and `go_on`, which the thread that loads calls.
    `pages`: the starting page, at each path of a page, and the pages' files.
    """

    def __init__(self, model: str | None, pages: Mapping[str, Endpoint], hold_s: float = HOLD_S):
        self._model, self._hold_s = model, hold_s
        self._app: ASGIApp | None = None
        self._engine: Engine | None = None
        self._health = EngineHealth(state="loading")
        self._has_been_ready = False
        endpoints = {"/": hello, **pages, "/api/hello": hello, "/api/version": version}
        endpoints |= {"/health": self._own_health, "/ready": self._own_ready}
        routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
        self._own = Starlette(routes=routes)

    # --- for the thread that loads ---

    def say(self, what: str) -> None:
        """Say what is being done, in a sentence."""
        self._health = EngineHealth(what, state="loading")

    def give_up(self, why: EverwarmError, *, is_missing: bool = False) -> None:
        """There will be no app: held requests are refused with the reason."""
        if self._engine is None:
            self._health = EngineHealth(why.message, state="missing" if is_missing else "ended")

    def go_on(self, app: ASGIApp, engine: Engine) -> None:
        """Let the app answer."""
        self._engine, self._app = engine, app

    # --- on the event loop ---

    @property
    def health(self) -> EngineHealth:
        """The engine's, once there is one."""
        return self._engine.health() if self._engine else self._health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_own(scope):
            return await self._own(scope, receive, send)
        try:
            app = await self._patiently(scope)
        except EverwarmError as e:
            return await refuse(e, scope, send)
        return await app(scope, receive, send)

    def _is_own(self, scope: Scope) -> bool:
        """Whether this is answered here: without an app what can be, then pages as long as the
        engine loads for the first time."""
        path = scope["path"]
        if self._app is None:
            return path in _OWN or path.startswith("/web/")
        self._has_been_ready |= self.health.state != "loading"
        return not self._has_been_ready and path in ("/", "/dashboard")

    async def _patiently(self, scope: Scope) -> ASGIApp:
        """The app, once it answers without more waiting than the client wants."""
        wait_s = preferred_wait_s(scope)
        held_s = self._hold_s if wait_s is None else wait_s
        since = time.monotonic()
        while self._app is None:
            if is_broken(self.health) or time.monotonic() - since >= held_s:
                raise not_yet(self.health)
            await asyncio.sleep(_LOOK_S)
        if wait_s is not None and self._engine and scope["method"] == "POST":
            left_s = since + wait_s - time.monotonic()
            if not await until_ready(self._engine, left_s):
                raise not_yet(self.health)
        return self._app

    async def _own_health(self, _: HttpRequest) -> Response:
        return health_answer(self.health, self._model)

    async def _own_ready(self, _: HttpRequest) -> Response:
        return json_answer(health_body(self.health, self._model), 503)


def health_answer(now: EngineHealth, model: str | None) -> Response:
    """The answer of `/health`."""
    return json_answer(health_body(now, model), 503 if is_broken(now) else 200)


async def hello(_: HttpRequest) -> Response:
    """What clients request to see whether a server is here."""
    return json_answer({"name": "everwarm", "status": "ok"})


async def version(_: HttpRequest) -> Response:
    return json_answer({"version": __version__})


def json_answer(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, None, "application/json")


def preferred_wait_s(scope: Scope) -> float | None:
    """How long the client wants to wait (RFC 7240); None where it does not say."""
    for name, value in scope["headers"]:
        if name == b"prefer" and (found := _PREFERRED.search(value.decode("latin-1").lower())):
            return float(found[1])
    return None
