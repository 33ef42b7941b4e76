"""The endpoints that answer with a model: one path for all wire formats.

    body -> parse -> Turns.answer -> Encoder -> frames, or one object

Streamed and unstreamed answers are the same events. While nothing else is sent, a sign of life goes
out: a real event in a stream, white space before an unstreamed answer.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

import orjson
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everwarm.config import Settings
from everwarm.errors import EverwarmError
from everwarm.events import Event, Progress, Started
from everwarm.request import Request
from everwarm.server.bodies import Bodies
from everwarm.server.ignored import header_of
from everwarm.server.kept import Kept
from everwarm.server.noted import Noted, Recorder
from everwarm.server.record import Trace
from everwarm.server.stream import KEEPALIVE_S, ClientGone, Pace, send_body, send_start, watched
from everwarm.wire import sse
from everwarm.wire.anthropic import parse_count
from everwarm.wire.errors import anthropic_error
from everwarm.wire.format import Asked, Encoder, Error, Format, Head, reply_of

log = logging.getLogger("everwarm.answer")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Answers(Protocol):
    """Who answers requests: `turn.Turns`."""

    def answer(
        self,
        request: Request,
        *,
        turn_id: str,
        arrived: float,
        parse_s: float,
        trace: Trace | None = None,
    ) -> AsyncIterator[Event]: ...


class Counts(Protocol):
    """Who counts tokens: `turn.Turns`."""

    async def count(self, request: Request) -> int: ...


class Answer:
    """An ASGI endpoint for one wire format."""

    def __init__(
        self,
        fmt: Format,
        turns: Answers,
        settings: Settings,
        *,
        model: str,
        kept: Kept,
        bodies: Bodies | None = None,
        recorder: Recorder | None = None,
        every_s: float = KEEPALIVE_S,
    ) -> None:
        self._format, self._turns, self._kept = fmt, turns, kept
        self._recorder = recorder
        self._model, self._every_s = model, every_s
        self._bodies, self._caches = bodies or Bodies(settings.max_body), settings.cache
        self._namespace = namespace_of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        turn_id = self._format.prefix + secrets.token_hex(12)
        line = _Line(send, request_ids(http, turn_id), Pace(self._every_s))
        encoder: Encoder | None = None
        noted = Noted(http.headers)
        try:
            arrived = time.perf_counter()
            asked = self._continued(await self._bodies.parsed(http, self._parse))
            line.headers |= header_of(asked.request.ignored)
            encoder = asked.encoder(Head(turn_id, self._model, int(time.time()), self._caches))
            parse_s = time.perf_counter() - arrived
            noted.asked, more = asked, {"trace": noted.trace} if self._recorder else {}
            events = self._turns.answer(
                asked.request, turn_id=turn_id, arrived=arrived, parse_s=parse_s, **more
            )
            way = self._stream if asked.stream else self._whole
            await way(watched(events, receive, line.pace), encoder, line, noted.said)
            self._keep(asked, turn_id, noted.said)
        except (ClientGone, ClientDisconnect):
            return
        # Whatever went wrong, the client hears of it in its own format, and no other is touched.
        except Exception as e:
            if not isinstance(e, EverwarmError):
                log.exception("an answer failed")
            await self._failed(e, encoder, line, scope, receive)
        finally:
            if self._recorder:
                self._recorder.note(noted)

    def _parse(self, body: bytes) -> Asked:
        """On a thread of bodies."""
        return self._format.parse(body, self._namespace)

    def _continued(self, asked: Asked) -> Asked:
        """The request with the conversation that it continues by an answer's id."""
        if asked.previous is None:
            return asked
        before = self._kept.get(self._namespace, asked.previous)
        own, new = asked.request.messages[: asked.n_own], asked.request.messages[asked.n_own :]
        return replace(asked, request=replace(asked.request, messages=(*own, *before, *new)))

    def _keep(self, asked: Asked, turn_id: str, said: list[Event]) -> None:
        if asked.store:
            messages = (*asked.request.messages[asked.n_own :], reply_of(said))
            self._kept.put(self._namespace, turn_id, messages)

    async def _stream(
        self,
        events: AsyncIterator[Event | None],
        encoder: Encoder,
        line: _Line,
        said: list[Event],
    ) -> None:
        """Headers with the first event, so that a refusal still has its own status."""
        progress: Progress | None = None
        async for event in events:
            chunks = [] if event is None else encoder.chunks(event)
            if isinstance(event, Progress):
                progress = event
            if event is not None:
                said.append(event)
                line.heard(event)
            if not chunks and line.pace.left == 0:
                chunks = encoder.keepalive(progress)
            await line.start("text/event-stream; charset=utf-8")
            await line.write(b"".join(map(self._format.frame, chunks)))
        await line.end(self._format.end)

    async def _whole(
        self,
        events: AsyncIterator[Event | None],
        encoder: Encoder,
        line: _Line,
        said: list[Event],
    ) -> None:
        """One object. White space goes before it where it takes long: it keeps the line open."""
        async for event in events:
            if event is not None:
                said.append(event)
                line.heard(event)
            if line.pace.left == 0:
                if said:
                    await line.start("application/json")
                    await line.write(b"\n")
                line.pace.sent()
        body = sse.dump(encoder.fold(said))
        await line.start("application/json")
        await line.end(body)

    async def _failed(
        self,
        error: Exception,
        encoder: Encoder | None,
        line: _Line,
        scope: Scope,
        receive: Receive,
    ) -> None:
        """Say what went wrong.

        A stream ends with an event that says it. An unstreamed answer that has begun ends
        unfinished: clients take it for a lost connection, and ask again.
        """
        if line.kind is None:
            refusal = _refuse(self._format.error(error), line.headers)
            await refusal(scope, receive, line.send)
        elif encoder is not None and line.kind.startswith("text/event-stream"):
            frames = b"".join(map(self._format.frame, encoder.failed(error)))
            await line.end(frames + self._format.end)


class _Line:
    """The way to one client: what has begun there, and when it heard of us last."""

    def __init__(self, send: Send, headers: dict[str, str], pace: Pace) -> None:
        self.send, self.headers, self.pace = send, headers, pace
        self.kind: str | None = None

    def heard(self, event: Event) -> None:
        """Take what the headers say out of an event; the first ones come before they are sent."""
        if isinstance(event, Started):
            self.headers |= header_of(event.ignored)

    async def start(self, kind: str) -> None:
        """Send the headers, once."""
        if self.kind is None:
            self.kind = kind
            await send_start(self.send, kind, self.headers)

    async def write(self, body: bytes) -> None:
        if body:
            await send_body(self.send, body)
            self.pace.sent()

    async def end(self, body: bytes) -> None:
        await send_body(self.send, body, more=False)


class CountTokens:
    """POST /v1/messages/count_tokens: tokenizes, and touches neither model nor cache."""

    def __init__(self, turns: Counts, bodies: Bodies) -> None:
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
            answer = _refuse(anthropic_error(e), headers)
        await answer(scope, receive, send)


def namespace_of(settings: Settings) -> str:
    """What separates callers with different keys."""
    key = settings.api_key
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def request_ids(http: HttpRequest, own: str) -> dict[str, str]:
    """The id that a client gave, or ours, under the names that the SDKs read."""
    given = http.headers.get("x-request-id", "")
    shown = given if _REQUEST_ID.fullmatch(given) else own
    return {"x-request-id": shown, "request-id": shown}


def _refuse(error: Error, headers: dict[str, str]) -> Response:
    status, body, more = error
    return Response(orjson.dumps(body), status, headers | more, "application/json")
