"""The endpoints that answer with a model: one path for all wire formats.

    body -> parse -> FanOut -> Turns.answer (once, or several times) -> Encoder -> frames

Streamed and unstreamed answers are the same events. While nothing else is sent, signs of life are:
real events in a stream, white space before an unstreamed answer.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import orjson
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everwarm.config import Settings
from everwarm.errors import EverwarmError, RequestError
from everwarm.events import Finished, Progress
from everwarm.request import Request
from everwarm.server.bodies import Bodies
from everwarm.server.fan_out import Answers, FanOut
from everwarm.server.ignored import header_of
from everwarm.server.refusals import blame
from everwarm.server.response_store import ResponseStore
from everwarm.server.stream import KEEPALIVE_S, ClientGone, HttpResponse, Pace, watched
from everwarm.server.turn import Turn
from everwarm.wire import sse
from everwarm.wire.anthropic import parse_count
from everwarm.wire.choices import ChoiceEvent, ChoicesEncoder
from everwarm.wire.error_json import anthropic_error
from everwarm.wire.format import Error, Format, Head, ParsedRequest

log = logging.getLogger("everwarm.answer")
STICKY: Final = "x-everwarm-sticky-reminders"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class CountsTokens(Protocol):
    """Who counts tokens: `turns.Turns`."""

    async def count(self, request: Request) -> int: ...


class Recorder(Protocol):
    """Records turns after their answers: `chat/recorder.py`."""

    def record(
        self, asked: ParsedRequest, headers: Mapping[str, str], turns: Sequence[Turn]
    ) -> None:
        """Record the turns of one request. Returns at once; never raises."""


class Answer:
    """An ASGI endpoint for one wire format."""

    def __init__(
        self,
        fmt: Format,
        turns: Answers,
        settings: Settings,
        *,
        model: str,
        store: ResponseStore,
        bodies: Bodies | None = None,
        recorder: Recorder | None = None,
        every_s: float = KEEPALIVE_S,
    ) -> None:
        self._format, self._turns, self._store = fmt, turns, store
        self._recorder = recorder
        self._model, self._every_s = model, every_s
        self._bodies, self._caches = bodies or Bodies(settings.max_body), settings.cache
        self._namespace = namespace_of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        turn_id = self._format.prefix + secrets.token_hex(12)
        response = HttpResponse(send, request_ids(http, turn_id), Pace(self._every_s))
        encoder: ChoicesEncoder | None = None
        asked: ParsedRequest | None = None
        turns: list[Turn] = []
        try:
            arrived = time.perf_counter()
            sticky = _sticky_of(http)
            asked = await self._bodies.parsed(http, self._parse)
            if sticky is not None:
                asked = replace(asked, request=replace(asked.request, sticky_reminders=sticky))
            response.headers |= header_of(asked.request.ignored)
            encoder = _encoder(asked, Head(turn_id, self._model, int(time.time()), self._caches))
            parse_s = time.perf_counter() - arrived
            turns += [
                Turn(f"{turn_id}.{n}" if n else turn_id, arrived=arrived, parse_s=parse_s)
                for n in range(asked.n_choices)
            ]
            events = FanOut(self._turns, asked.prompts, turns).events()
            way = self._stream if asked.stream else self._whole
            await way(watched(events, receive, response.pace), encoder, response, asked)
        except (ClientGone, ClientDisconnect):
            return
        # Whatever went wrong, this client is told in its own format, and no other is affected.
        except Exception as e:
            if not isinstance(e, EverwarmError):
                log.exception("an answer failed")
            blame(scope, e)
            await self._failed(e, encoder, response, scope, receive)
        finally:
            if self._recorder and asked:
                self._recorder.record(asked, http.headers, turns)

    def _parse(self, body: bytes) -> ParsedRequest:
        """Parse a body, on a thread of `Bodies`."""
        return self._format.parse(body, self._namespace)

    async def _stream(
        self,
        events: AsyncIterator[ChoiceEvent | None],
        encoder: ChoicesEncoder,
        response: HttpResponse,
        asked: ParsedRequest,
    ) -> None:
        """Send the headers with the first event only, so that a refusal can have its own status."""
        progress: Progress | None = None
        async for said in events:
            chunks = [] if said is None else encoder.chunks(said)
            if said is not None:
                response.heard(said.event)
                if isinstance(said.event, Progress):
                    progress = said.event
                if isinstance(said.event, Finished):
                    self._keep(asked, encoder)
            if not chunks and response.pace.left == 0:
                chunks = encoder.keepalive(progress)
            await response.start("text/event-stream; charset=utf-8")
            await response.write(b"".join(map(self._format.frame, chunks)))
        await response.end(self._format.end)

    async def _whole(
        self,
        events: AsyncIterator[ChoiceEvent | None],
        encoder: ChoicesEncoder,
        response: HttpResponse,
        asked: ParsedRequest,
    ) -> None:
        """Send one object. Where it takes long, white space before it keeps the connection open."""
        has_begun = False
        async for said in events:
            if said is not None:
                encoder.take(said)
                response.heard(said.event)
                has_begun = True
            if response.pace.left == 0:
                if has_begun:
                    await response.start("application/json")
                    await response.write(b"\n")
                response.pace.sent()
        self._keep(asked, encoder)
        body = sse.dump(encoder.answer())
        await response.start("application/json")
        await response.end(body)

    def _keep(self, asked: ParsedRequest, encoder: ChoicesEncoder) -> None:
        """Store an answer where that was asked for, before its client may refer to it."""
        if asked.stored_input is not None:
            self._store.put(self._namespace, encoder.answer(), asked.stored_input)

    async def _failed(
        self,
        error: Exception,
        encoder: ChoicesEncoder | None,
        response: HttpResponse,
        scope: Scope,
        receive: Receive,
    ) -> None:
        """Say what went wrong.

        A stream ends with an event that says it. An unstreamed answer that has begun is left
        unfinished: clients take that for a lost connection, and ask again.
        """
        if response.kind is None:
            refusal = _refuse(self._format.error(error), response.headers)
            await refusal(scope, receive, response.send)
        elif encoder is not None and response.kind.startswith("text/event-stream"):
            frames = b"".join(map(self._format.frame, encoder.failed(error)))
            await response.end(frames + self._format.end)


class CountTokens:
    """POST /v1/messages/count_tokens: tokenizes, and uses neither model nor cache."""

    def __init__(self, turns: CountsTokens, bodies: Bodies) -> None:
        self._turns, self._bodies = turns, bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        headers = request_ids(http, "req_" + secrets.token_hex(12))
        try:
            request = await self._bodies.parsed(http, parse_count)
            n = await self._turns.count(request)
            headers |= header_of(request.ignored)
            answer = Response(orjson.dumps({"input_tokens": n}), 200, headers, "application/json")
        except EverwarmError as e:
            blame(scope, e)
            answer = _refuse(anthropic_error(e), headers)
        await answer(scope, receive, send)


def _encoder(asked: ParsedRequest, head: Head) -> ChoicesEncoder:
    n_samples = asked.request.samples
    return ChoicesEncoder(
        partial(asked.encoder, head), n_prompts=len(asked.prompts), n_samples=n_samples
    )


def namespace_of(settings: Settings) -> str:
    """The namespace that separates callers with different keys in the cache."""
    key = settings.api_key
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def _sticky_of(http: HttpRequest) -> bool | None:
    """Whether reminders stay (`prompt/reminders.py`), if a header says it. Many clients can be
    configured to send a header, but not a field."""
    given = http.headers.get(STICKY)
    if given not in (None, "true", "false"):
        raise RequestError(f"The header {STICKY} must be true or false.", param=STICKY)
    return None if given is None else given == "true"


def request_ids(http: HttpRequest, own: str) -> dict[str, str]:
    """The client's own request id, or ours, under the header names that the SDKs read."""
    given = http.headers.get("x-request-id", "")
    shown = given if _REQUEST_ID.fullmatch(given) else own
    return {"x-request-id": shown, "request-id": shown}


def _refuse(error: Error, headers: dict[str, str]) -> Response:
    status, body, more = error
    return Response(orjson.dumps(body), status, headers | more, "application/json")
