"""One request to an ASGI app, and all that it sends, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from everwarm.events import Event
from everwarm.request import Request
from everwarm.server.turn import Turn


@dataclass
class Scripted:
    """Answers every request with the same events; `script` may wait or raise between them."""

    script: Callable[[], AsyncIterator[Event]]
    requests: list[Request] = field(default_factory=list)

    def answer(
        self, request: Request, turn: Turn, place: object | None = None
    ) -> AsyncIterator[Event]:
        self.requests.append(request)
        return self.script()


@dataclass
class Answered:
    """What came back. `complete`: the body was brought to its end."""

    status: int
    headers: dict[str, str]
    parts: list[bytes]
    complete: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: Any,
    path: str = "/",
    body: object = None,
    *,
    method: str = "POST",
    headers: list[tuple[str, str]] | None = None,
    sent: list[dict[str, Any]] | None = None,
) -> Answered:
    """Send one request and read until the app returns. `sent` fills with what the app sends."""
    sent = [] if sent is None else sent
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = headers if headers is not None else [("Host", "localhost")]
    url, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": url,
        "raw_path": url.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode()) for k, v in given],
        "scheme": "http",
        "http_version": "1.1",
    }

    async def run() -> None:
        first = True

        async def receive() -> dict[str, Any]:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": raw, "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(run())
    start, *rest = sent
    seen = {k.decode().lower(): v.decode() for k, v in start.get("headers", [])}
    parts = [m.get("body", b"") for m in rest]
    return Answered(start["status"], seen, parts, bool(rest) and not rest[-1].get("more_body"))
