"""The ASGI app: routes, body limits, errors in the wire format's shape."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from dataclasses import asdict
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.errors import EverwarmError, NotFound, RequestError
from everwarm.job import Engine, ModelInfo
from everwarm.replies import ReplyStore
from everwarm.server.guard import Guard
from everwarm.server.stream import ClientGone, send_body, send_start, watched
from everwarm.server.turn import Turns
from everwarm.wire import openai_chat, sse
from everwarm.wire.errors import openai_error

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def create_app(
    engine: Engine, codec: Codec, settings: Settings, store: ReplyStore | None = None
) -> ASGIApp:
    """The whole HTTP side of one loaded model. `store`: where its replies outlive the process."""
    turns = Turns(engine, codec, settings, store)
    routes = _Routes(turns, settings)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", _Chat(turns, settings), methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/v1/models/{name:path}", routes.model),
            Route("/health", routes.health),
            Route("/ready", routes.ready),
            Route("/api/turns", routes.recent),
            Route("/api/ps", routes.ps),
        ]
    )
    return Guard(app, settings)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


def _refusal(error: Exception) -> Response:
    status, body, headers = openai_error(error)
    return _json(body, status, headers)


def _model(info: ModelInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "object": "model",
        "created": info.created,
        "owned_by": "everwarm",
        "context_length": info.context_length,
        "max_model_len": info.context_length,
        "state": "loaded",
        "quantization": info.quantization,
        "capabilities": {"reasoning": info.has_reasoning, "tools": info.has_tools},
        "aliases": list(info.aliases),
    }


class _Routes:
    """The small GET routes."""

    def __init__(self, turns: Turns, settings: Settings) -> None:
        self._turns = turns
        self._settings = settings

    async def models(self, _: HttpRequest) -> Response:
        return _json({"object": "list", "data": [_model(self._turns.engine.model)]})

    async def model(self, http: HttpRequest) -> Response:
        info = self._turns.engine.model
        if http.path_params["name"] not in (info.id, *info.aliases):
            message = f"This server has the model '{info.id}' only; ask for that."
            return _refusal(NotFound(message, param="model", code="model_not_found"))
        return _json(_model(info))

    async def health(self, _: HttpRequest) -> Response:
        return _json({"status": "ok", "model": self._turns.engine.model.id})

    async def ready(self, _: HttpRequest) -> Response:
        """As `health`, with the disk tier's state: it never keeps an answer from being given."""
        stats = await asyncio.to_thread(self._turns.engine.stats)
        disk = {k: v for k, v in stats.items() if k in ("disk_state", "disk_why")}
        return _json({"status": "ok", "model": self._turns.engine.model.id, **disk})

    async def recent(self, http: HttpRequest) -> Response:
        limit = http.query_params.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            return _refusal(RequestError("limit goes from 1 to 1,000.", param="limit"))
        return _json({"turns": [asdict(r) for r in list(self._turns.records)[: int(limit)]]})

    async def ps(self, _: HttpRequest) -> Response:
        stats = await asyncio.to_thread(self._turns.engine.stats)
        running = [asdict(live) for live in self._turns.running.values()]
        return _json(
            {"model": _model(self._turns.engine.model), "engine": stats, "running": running}
        )


class _Chat:
    """POST /v1/chat/completions. One code path: streamed and unstreamed are the same events."""

    def __init__(self, turns: Turns, settings: Settings) -> None:
        self._turns = turns
        self._max_body = settings.max_body
        key = settings.api_key
        self._namespace = hashlib.sha256(key.encode()).hexdigest() if key else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        try:
            await self._answer(http, receive, send)
        except ClientGone:
            return
        except EverwarmError as e:
            await _refusal(e)(scope, receive, send)

    async def _answer(self, http: HttpRequest, receive: Receive, send: Send) -> None:
        arrived = time.perf_counter()
        body = openai_chat.parse(await self._read(http), namespace=self._namespace)
        turn_id = "chatcmpl-" + secrets.token_hex(12)
        events = self._turns.answer(
            body.request, turn_id=turn_id, arrived=arrived, parse_s=time.perf_counter() - arrived
        )
        encoder = openai_chat.Encoder(
            turn_id,
            self._turns.engine.model.id,
            int(time.time()),
            include_usage=body.include_usage,
        )
        headers = _echo(http)
        if body.stream:
            await self._stream(events, encoder, receive, send, headers)
            return
        folded = [e async for e in watched(events, receive) if e is not None]
        await _json(encoder.fold(folded), 200, headers)(http.scope, receive, send)

    async def _read(self, http: HttpRequest) -> bytes:
        body = bytearray()
        async for part in http.stream():
            body += part
            if len(body) > self._max_body:
                error = RequestError(f"The body may have {self._max_body:,} bytes.", param="body")
                error.status = 413
                raise error
        return bytes(body)

    async def _stream(
        self,
        events: Any,
        encoder: openai_chat.Encoder,
        receive: Receive,
        send: Send,
        headers: dict[str, str],
    ) -> None:
        """Headers with the first event, so that a refusal still has its own status."""
        started = False
        try:
            async for event in watched(events, receive):
                chunks = [encoder.keepalive()] if event is None else encoder.chunks(event)
                if not started:
                    await send_start(send, headers)
                    started = True
                if chunks:
                    await send_body(send, b"".join(sse.event(c) for c in chunks))
        except EverwarmError as e:
            if not started:
                raise
            await send_body(send, sse.event(openai_error(e)[1]))
        await send_body(send, sse.DONE, more=False)


def _echo(http: HttpRequest) -> dict[str, str]:
    given = http.headers.get("x-request-id", "")
    return {"x-request-id": given} if _REQUEST_ID.fullmatch(given) else {}
