"""The ASGI app: its routes, and its errors in the format of the path that was asked for."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from everwarm import __version__
from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.errors import EverwarmError, NotFound, RequestError
from everwarm.history.database import Database
from everwarm.job import Engine
from everwarm.replies import ReplyStore
from everwarm.server.answer import Answer, CountTokens, Recorder, namespace_of
from everwarm.server.bodies import Bodies, ReturnsMemory
from everwarm.server.engine_state import engine_facts, engine_stats, health_body
from everwarm.server.guard import Guard
from everwarm.server.refusals import blame
from everwarm.server.response_routes import ResponseRoutes
from everwarm.server.response_store import ResponseStore
from everwarm.server.route_policy import POLICIES, Endpoint, policy_of
from everwarm.server.starting import health_answer, hello, version
from everwarm.server.totals import CONTENT_TYPE
from everwarm.server.turns import Turns
from everwarm.wire import formats
from everwarm.wire.error_json import anthropic_error, openai_error
from everwarm.wire.format import Format
from everwarm.wire.model_json import anthropic_model, anthropic_models, openai_model, openai_models
from everwarm.wire.openapi import Contents, description

log = logging.getLogger("everwarm.server")


@dataclass(frozen=True, slots=True)
class Core:
    """What serves one loaded model over the client APIs. Live: event loop only."""

    turns: Turns
    settings: Settings
    bodies: Bodies
    responses: ResponseStore = field(default_factory=ResponseStore)

    @classmethod
    def start(
        cls, engine: Engine, codec: Codec, settings: Settings, store: ReplyStore | None
    ) -> Core:
        """Start to serve. Logs what of the model's template cannot be relied on."""
        turns = Turns(engine, codec, settings, store)
        for limit in turns.model.limits:
            log.warning("%s: %s", engine.model.id, limit)
        return cls(turns, settings, Bodies(settings.max_body))

    def endpoints(self, history: Database, recorder: Recorder | None) -> dict[str, Any]:
        """The endpoints of the client APIs, and of those that watch the server, by path."""

        def answer(fmt: Format) -> Answer:
            return Answer(
                fmt,
                self.turns,
                self.settings,
                model=self.turns.engine.model.id,
                store=self.responses,
                bodies=self.bodies,
                recorder=recorder,
            )

        stored = ResponseRoutes(self.responses, namespace_of(self.settings), self.turns.running)
        return {
            **Status(self.turns, history).endpoints(),
            **stored.endpoints(),
            "/v1/chat/completions": answer(formats.CHAT),
            "/v1/completions": answer(formats.COMPLETIONS),
            "/v1/responses": answer(formats.responses(self.responses)),
            "/v1/messages": answer(formats.MESSAGES),
            "/v1/messages/count_tokens": CountTokens(self.turns, self.bodies),
        }

    def app(self, endpoints: Mapping[str, Any], contents: Contents) -> Guard:
        """The guarded ASGI app of these endpoints, one for each route of the table."""
        described = {"/openapi.json": Described(contents).openapi}
        found = {**described, **endpoints}
        routes = [Route(p.path, found[p.path], methods=list(p.methods)) for p in POLICIES]
        handlers: Any = {HTTPException: _not_here, EverwarmError: _refused}
        around = [Middleware(ReturnsMemory, self.bodies)]
        return Guard(
            Starlette(routes=routes, middleware=around, exception_handlers=handlers), self.settings
        )


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


def _refusal(http: HttpRequest, error: Exception) -> Response:
    blame(http.scope, error)
    spell = anthropic_error if _is_anthropic(http) else openai_error
    status, body, headers = spell(error)
    return _json(body, status, headers)


def _is_anthropic(http: HttpRequest) -> bool:
    return "anthropic-version" in http.headers or policy_of(http.url.path).shape == "anthropic"


async def _not_here(http: HttpRequest, error: Exception) -> Response:
    """Refuse a path that does not exist, or not with this method."""
    assert isinstance(error, HTTPException)
    said = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    refused = RequestError(said.get(error.status_code, str(error.detail)))
    refused.status = error.status_code
    answer = _refusal(http, refused)
    answer.headers.update(error.headers or {})
    return answer


async def _refused(http: HttpRequest, error: Exception) -> Response:
    """Answer with an error of ours that an endpoint raised."""
    return _refusal(http, error)


class Status:
    """The routes that tell what this server is and does. They answer HEAD too."""

    def __init__(self, turns: Turns, history: Database) -> None:
        self._turns, self._history = turns, history
        self._engine = turns.engine

    def endpoints(self) -> dict[str, Endpoint]:
        """The endpoints by path."""
        return {
            "/v1/models": self.models,
            "/v1/models/{name:path}": self.model,
            "/api/turns": self.recent,
            "/api/ps": self.ps,
            "/health": self.health,
            "/ready": self.ready,
            "/api/hello": hello,
            "/api/version": version,
            "/metrics": self.metrics,
            "/": hello,
        }

    async def models(self, http: HttpRequest) -> Response:
        infos = [self._turns.model]
        return _json(anthropic_models(infos) if _is_anthropic(http) else openai_models(infos))

    async def model(self, http: HttpRequest) -> Response:
        info = self._turns.model
        if http.path_params["name"] not in (info.id, *info.aliases):
            message = f"This server has the model '{info.id}' only; ask for that."
            return _refusal(http, NotFound(message, param="model", code="model_not_found"))
        return _json(anthropic_model(info) if _is_anthropic(http) else openai_model(info))

    async def health(self, _: HttpRequest) -> Response:
        """Whether turns are taken. A step that takes very long is told, but is no failure."""
        return health_answer(self._engine.health(), self._engine.model.id)

    async def metrics(self, _: HttpRequest) -> Response:
        """Prometheus's text format."""
        stats = await engine_stats(self._engine)
        now = self._engine.health()
        text = self._turns.totals.metrics(stats, len(self._turns.running), now)
        return Response(text, 200, media_type=CONTENT_TYPE)

    async def ready(self, _: HttpRequest) -> Response:
        """Whether a turn would begin at once, and the states of disk tier and history: turns are
        answered without either of them."""
        now = self._engine.health()
        body = health_body(now, self._engine.model.id)
        if now.disk_state is not None:
            body |= {"disk_state": now.disk_state, "disk_why": now.disk_why}
        if now.last_words:
            body["last_words"] = now.last_words
        why = await asyncio.to_thread(self._history.trouble)
        body |= {"history_state": "lost" if why else "ok", "history_why": why}
        return _json(body, 200 if body["status"] == "ok" else 503)

    async def recent(self, http: HttpRequest) -> Response:
        limit = http.query_params.get("limit", "20")
        if not (limit.isascii() and limit.isdecimal()) or not 1 <= int(limit[:5]) <= 1000:
            return _refusal(http, RequestError("limit goes from 1 to 1,000.", param="limit"))
        return _json({"turns": [asdict(r) for r in list(self._turns.records)[: int(limit)]]})

    async def ps(self, _: HttpRequest) -> Response:
        stats = await engine_stats(self._engine)
        running = [turn.progress() for turn in self._turns.running.values()]
        return _json(
            {
                "model": openai_model(self._turns.model),
                "engine": stats | engine_facts(self._engine.health()),
                "running": running,
                "totals": self._turns.totals.shown(),
            }
        )


class Described:
    """The description of all routes, in OpenAPI. Made at the first request for it."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._text: str | None = None

    async def openapi(self, _: HttpRequest) -> Response:
        if self._text is None:
            self._text = await asyncio.to_thread(self._made)
        return Response(self._text, media_type="application/json")

    def _made(self) -> str:
        """Not with orjson, which cannot write the bound of a seed, 2**64."""
        routes = [(p.path, p.methods, p.needs_key, p.shape) for p in POLICIES]
        return json.dumps(description(__version__, routes, self._contents))
