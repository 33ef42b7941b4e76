"""The endpoints that answer with a model: one path for all wire formats.

    body -> parse -> FanOut -> Turns.answer (once, or several times) -> Encoder -> frames

Streamed and unstreamed answers are the same events. While nothing else is sent, a sign of life goes
out: a real event in a stream, white space before an unstreamed answer.
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
from everwarm.events import Event, Finished, Progress, Started
from everwarm.request import Request
from everwarm.server.bodies import Bodies
from everwarm.server.fan_out import Answers, FanOut
from everwarm.server.ignored import header_of
from everwarm.server.refusals import blame
from everwarm.server.response_store import ResponseStore
from everwarm.server.stream import KEEPALIVE_S, ClientGone, Pace, send_body, send_start, watched
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
    """Writes turns down behind the answer: `chat/recorder.py`."""

    def record(
        self, asked: ParsedRequest, headers: Mapping[str, str], turns: Sequence[Turn]
    ) -> None:
        """Write down what was answered. Returns at once; never raises."""


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
        line = _HttpResponse(send, request_ids(http, turn_id), Pace(self._every_s))
        encoder: ChoicesEncoder | None = None
        asked: ParsedRequest | None = None
        turns: list[Turn] = []
        try:
            arrived = time.perf_counter()
            sticky = _sticky_of(http)
            asked = await self._bodies.parsed(http, self._parse)
            if sticky is not None:
                asked = replace(asked, request=replace(asked.request, sticky_reminders=sticky))
            line.headers |= header_of(asked.request.ignored)
            encoder = _encoder(asked, Head(turn_id, self._model, int(time.time()), self._caches))
            parse_s = time.perf_counter() - arrived
            turns += [
                Turn(f"{turn_id}.{n}" if n else turn_id, arrived=arrived, parse_s=parse_s)
                for n in range(asked.n_choices)
            ]
            events = FanOut(self._turns, asked.prompts, turns).events()
            way = self._stream if asked.stream else self._whole
            await way(watched(events, receive, line.pace), encoder, line, asked)
        except (ClientGone, ClientDisconnect):
            return
        # Whatever went wrong, the client hears of it in its own format, and no other is touched.
        except Exception as e:
            if not isinstance(e, EverwarmError):
                log.exception("an answer failed")
            blame(scope, e)
            await self._failed(e, encoder, line, scope, receive)
        finally:
            if self._recorder and asked:
                self._recorder.record(asked, http.headers, turns)

    def _parse(self, body: bytes) -> ParsedRequest:
        """On a thread of bodies."""
        return self._format.parse(body, self._namespace)

    async def _stream(
        self,
        events: AsyncIterator[ChoiceEvent | None],
        encoder: ChoicesEncoder,
        line: _HttpResponse,
        asked: ParsedRequest,
    ) -> None:
        """Headers with the first event, so that a refusal still has its own status."""
        progress: Progress | None = None
        async for said in events:
            chunks = [] if said is None else encoder.chunks(said)
            if said is not None:
                line.heard(said.event)
                if isinstance(said.event, Progress):
                    progress = said.event
                if isinstance(said.event, Finished):
                    self._keep(asked, encoder)
            if not chunks and line.pace.left == 0:
                chunks = encoder.keepalive(progress)
            await line.start("text/event-stream; charset=utf-8")
            await line.write(b"".join(map(self._format.frame, chunks)))
        await line.end(self._format.end)

    async def _whole(
        self,
        events: AsyncIterator[ChoiceEvent | None],
        encoder: ChoicesEncoder,
        line: _HttpResponse,
        asked: ParsedRequest,
    ) -> None:
        """One object. White space goes before it where it takes long: it keeps the line open."""
        has_begun = False
        async for said in events:
            if said is not None:
                encoder.take(said)
                line.heard(said.event)
                has_begun = True
            if line.pace.left == 0:
                if has_begun:
                    await line.start("application/json")
                    await line.write(b"\n")
                line.pace.sent()
        self._keep(asked, encoder)
        body = sse.dump(encoder.answer())
        await line.start("application/json")
        await line.end(body)

    def _keep(self, asked: ParsedRequest, encoder: ChoicesEncoder) -> None:
        """Store an answer where that was asked, before its client is told and may refer to it."""
        if asked.stored_input is not None:
            self._store.put(self._namespace, encoder.answer(), asked.stored_input)

    async def _failed(
        self,
        error: Exception,
        encoder: ChoicesEncoder | None,
        line: _HttpResponse,
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


class _HttpResponse:
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
    """What separates callers with different keys."""
    key = settings.api_key
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def _sticky_of(http: HttpRequest) -> bool | None:
    """Whether reminders stay (`prompt/reminders.py`), where a client's headers say it. Clients can
    be made to send a header where they cannot be made to send a field."""
    given = http.headers.get(STICKY)
    if given not in (None, "true", "false"):
        raise RequestError(f"The header {STICKY} must be true or false.", param=STICKY)
    return None if given is None else given == "true"


def request_ids(http: HttpRequest, own: str) -> dict[str, str]:
    """The id that a client gave, or ours, under the names that the SDKs read."""
    given = http.headers.get("x-request-id", "")
    shown = given if _REQUEST_ID.fullmatch(given) else own
    return {"x-request-id": shown, "request-id": shown}


def _refuse(error: Error, headers: dict[str, str]) -> Response:
    status, body, more = error
    return Response(orjson.dumps(body), status, headers | more, "application/json")
