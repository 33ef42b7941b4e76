"""Checks who may talk to this server: Host, Origin and key, in the raw headers, before all else.

This defends a person's machine against web pages (DNS rebinding, cross-site posts) and strangers. A
page may call if its origin is the very address of this server, port included, or is listed in the
setting `allowed_origins`: any other program on this computer may serve pages too. Programs send
neither Origin nor Sec-Fetch-Site, and need neither. `route_policy.py` says which paths need a key;
Host and Origin are checked for all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Final

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everwarm.config import Settings
from everwarm.errors import EverwarmError, Forbidden, RequestError
from everwarm.server.refusals import Refusals, blame
from everwarm.server.route_policy import policy_of
from everwarm.wire.error_json import anthropic_error, openai_error

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 64 * 2**10

_FORM_TYPES: Final = frozenset(
    {"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"}
)
"""Content types that a page of any origin may send without a preflight request."""
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")

Headers = list[tuple[bytes, bytes]]


def is_loopback(host: str) -> bool:
    return host.strip("[]").lower().rstrip(".") in LOOPBACK


def host_name(authority: str) -> str:
    """`[::1]:80` -> `::1`; empty where the text is no host."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1].strip("[]").lower().rstrip(".") if found else ""


class Guard:
    """ASGI middleware. It spells its refusals in the error format of the path, and logs every
    answer that refuses something, whoever gave it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        key = settings.api_key
        self._key = hashlib.sha256(key.encode()).digest() if key else None
        self._hosts = LOOPBACK | {settings.host.lower(), *settings.allowed_hosts}
        self._origins = frozenset(settings.allowed_origins)
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        send = self._watched(scope, send)
        origin = self._listed_origin(scope["headers"])
        if origin:
            send = _readable_by(origin, send)
        try:
            is_preflight = self._check(scope)
        except RequestError as e:
            return await refuse(e, scope, send)
        if is_preflight:
            return await _allow(send)
        return await self.app(scope, receive, send)

    def _watched(self, scope: Scope, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._refusals.note(scope, message["status"])
            await send(message)

        return sending

    def _check(self, scope: Scope) -> bool:
        """Raises RequestError. Returns whether this is the preflight request of a listed page."""
        headers: Headers = scope["headers"]
        if (
            len(headers) > MAX_HEADERS
            or sum(len(k) + len(v) for k, v in headers) > MAX_HEADER_BYTES
        ):
            too_many = RequestError(
                f"A request may have {MAX_HEADERS} headers and {MAX_HEADER_BYTES:,} bytes of them."
            )
            too_many.status = 431
            raise too_many
        hosts = [v.decode("latin-1") for k, v in headers if k == b"host"]
        if len(hosts) != 1 or not host_name(hosts[0]):
            raise RequestError("Send exactly one Host header that names this server.", param="Host")
        if host_name(hosts[0]) not in self._hosts:
            raise Forbidden("This Host is not served here; see the setting allowed_hosts.")
        self._check_page(scope, hosts[0])
        asks = scope["method"] == "OPTIONS" and _values(headers, b"access-control-request-method")
        if asks and self._listed_origin(headers):
            return True
        if self._key and policy_of(scope["path"]).needs_key:
            self._check_key(headers, self._key)
        return False

    def _listed_origin(self, headers: Headers) -> str | None:
        given = _values(headers, b"origin")
        return given[0] if len(given) == 1 and given[0] in self._origins else None

    def _check_page(self, scope: Scope, host: str) -> None:
        """Check what a browser says of the page that calls. `host` has been checked."""
        headers: Headers = scope["headers"]
        own = _origin(f"{scope['scheme']}://{host}")
        origins, sites = _values(headers, b"origin"), _values(headers, b"sec-fetch-site")
        for origin in origins:
            if origin not in self._origins and _origin(origin) != own:
                raise Forbidden("This Origin may not call; see the setting allowed_origins.")
        if any(site not in ("same-origin", "none") for site in sites):
            is_open = scope["method"] in ("GET", "HEAD") and not policy_of(scope["path"]).needs_key
            if not self._listed_origin(headers) and not is_open:
                raise Forbidden("A page of another site may not call this server.")
        if (origins or sites) and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            for kind in _values(headers, b"content-type"):
                if kind.partition(";")[0].strip().lower() in _FORM_TYPES:
                    raise _not_json()

    def _check_key(self, headers: Headers, key: bytes) -> None:
        """Compare digests, so that the time taken shows neither content nor length of the key."""
        given = [v for k, v in headers if k == b"x-api-key"]
        given += [
            v[7:] for k, v in headers if k == b"authorization" and v[:7].lower() == b"bearer "
        ]
        digests = [hashlib.sha256(g.strip()).digest() for g in given]
        if not sum(hmac.compare_digest(d, key) for d in digests):
            raise Forbidden("The API key is missing or wrong.", status=401, code="invalid_api_key")


def _origin(spelled: str) -> str:
    """An origin as browsers spell it: without the default port of its scheme."""
    scheme, _, authority = spelled.lower().partition("://")
    return f"{scheme}://{authority.removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"


def _not_json() -> RequestError:
    refused = RequestError("A page sends content-type: application/json.", param="Content-Type")
    refused.status = 415
    return refused


def _values(headers: Headers, name: bytes) -> list[str]:
    return [v.decode("latin-1") for k, v in headers if k == name]


def _readable_by(origin: str, send: Send) -> Send:
    """Send answers that a page of this origin may read."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"vary", b"Origin"),
            ]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return sending


async def _allow(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE"),
        (b"access-control-allow-headers", b"authorization, content-type, x-api-key, "
         b"anthropic-version, anthropic-beta, x-request-id"),
        (b"access-control-max-age", b"600"),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def refuse(error: EverwarmError, scope: Scope, send: Send) -> None:
    """Answer a request with an error, in the format of its path."""
    blame(scope, error)
    is_anthropic = policy_of(scope["path"]).shape == "anthropic"
    status, body, extra = (anthropic_error if is_anthropic else openai_error)(error)
    headers: list[Any] = [(b"content-type", b"application/json")]
    headers += [(k.encode(), v.encode()) for k, v in extra.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(body)})
