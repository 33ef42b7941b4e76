"""Who may talk to this server: Host, Origin and key are checked on the raw headers, first of all.

Defends a person's machine against web pages (DNS rebinding, cross-site posts) and strangers.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from everwarm.config import Settings
from everwarm.errors import Forbidden, RequestError
from everwarm.wire.errors import openai_error

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    return host.strip("[]").lower().rstrip(".") in LOOPBACK


def host_name(authority: str) -> str:
    """`[::1]:80` -> `::1`; empty where it is no host."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Guard:
    """ASGI middleware. `/health` needs no key."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._key = settings.api_key
        self._hosts = LOOPBACK | {settings.host.lower(), *settings.allowed_hosts}
        self._origins = frozenset(settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RequestError as e:
                await _refuse(e, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [v.decode("latin-1") for k, v in headers if k == b"host"]
        if len(hosts) != 1 or not host_name(hosts[0]):
            raise RequestError("Send exactly one Host header that names this server.", param="Host")
        if host_name(hosts[0]) not in self._hosts:
            raise Forbidden("This Host is not served here; see the setting allowed_hosts.")
        for origin in [v.decode("latin-1") for k, v in headers if k == b"origin"]:
            if origin not in self._origins and not self._is_own(origin):
                raise Forbidden("This Origin may not call; see the setting allowed_origins.")
        if self._key and scope["path"] != "/health":
            self._check_key(headers)

    def _is_own(self, origin: str) -> bool:
        return is_loopback(host_name(origin.partition("://")[2]))

    def _check_key(self, headers: list[tuple[bytes, bytes]]) -> None:
        given = [v for k, v in headers if k == b"x-api-key"]
        given += [
            v[7:] for k, v in headers if k == b"authorization" and v[:7].lower() == b"bearer "
        ]
        key = (self._key or "").encode()
        if not any(hmac.compare_digest(g.strip(), key) for g in given):
            raise Forbidden("The API key is missing or wrong.", status=401, code="invalid_api_key")


async def _refuse(error: RequestError, send: Send) -> None:
    status, body, extra = openai_error(error)
    headers = [(b"content-type", b"application/json")]
    headers += [(k.encode(), v.encode()) for k, v in extra.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(body)})
