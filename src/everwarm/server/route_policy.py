"""The table of all routes, and how each of them is guarded.

`guard.py` checks Host and Origin for all of them. A path that is not in the table needs a key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

Endpoint = Callable[[HttpRequest], Awaitable[Response]]
ErrorShape = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """How a path is guarded. `shape`: the format of its errors.

    `needs_key` is False only for what says nothing of a person: that a server is here, and alive.
    """

    path: str
    methods: tuple[str, ...]
    needs_key: bool = True
    shape: ErrorShape = "openai"


POLICIES = (
    RoutePolicy("/v1/chat/completions", ("POST",)),
    RoutePolicy("/v1/completions", ("POST",)),
    RoutePolicy("/v1/responses", ("POST",)),
    RoutePolicy("/v1/responses/{id}", ("GET", "DELETE")),
    RoutePolicy("/v1/responses/{id}/input_items", ("GET",)),
    RoutePolicy("/v1/responses/{id}/cancel", ("POST",)),
    RoutePolicy("/v1/messages", ("POST",), shape="anthropic"),
    RoutePolicy("/v1/messages/count_tokens", ("POST",), shape="anthropic"),
    RoutePolicy("/v1/models", ("GET",)),
    RoutePolicy("/v1/models/{name:path}", ("GET",)),
    RoutePolicy("/api/turns", ("GET",)),
    RoutePolicy("/api/ps", ("GET",)),
    RoutePolicy("/api/sessions", ("GET", "POST")),
    RoutePolicy("/api/sessions/import", ("POST",)),
    RoutePolicy("/api/sessions/{id}", ("GET", "PATCH", "DELETE")),
    RoutePolicy("/api/sessions/{id}/tree", ("GET",)),
    RoutePolicy("/api/sessions/{id}/send", ("POST",)),
    RoutePolicy("/api/sessions/{id}/regenerate", ("POST",)),
    RoutePolicy("/api/sessions/{id}/continue", ("POST",)),
    RoutePolicy("/api/sessions/{id}/edit", ("POST",)),
    RoutePolicy("/api/sessions/{id}/stop", ("POST",)),
    RoutePolicy("/api/sessions/{id}/stream", ("GET",)),
    RoutePolicy("/api/sessions/{id}/branches", ("POST",)),
    RoutePolicy("/api/sessions/{id}/select", ("POST",)),
    RoutePolicy("/api/sessions/{id}/undo", ("POST",)),
    RoutePolicy("/api/sessions/{id}/export", ("GET",)),
    RoutePolicy("/api/sessions/{id}/prepare", ("POST",)),
    RoutePolicy("/api/sessions/{id}/compact", ("POST",)),
    RoutePolicy("/api/sessions/{id}/uncompact", ("POST",)),
    RoutePolicy("/api/turns/{id}/cancel", ("POST",)),
    RoutePolicy("/api/dashboard", ("GET",)),
    RoutePolicy("/api/cache/tree", ("GET",)),
    RoutePolicy("/api/cache/pin", ("POST",)),
    RoutePolicy("/api/cache/drop", ("POST",)),
    RoutePolicy("/metrics", ("GET",)),
    RoutePolicy("/health", ("GET",), needs_key=False),
    RoutePolicy("/ready", ("GET",)),
    RoutePolicy("/", ("GET",), needs_key=False),
    RoutePolicy("/api/hello", ("GET",), needs_key=False),
    RoutePolicy("/api/version", ("GET",), needs_key=False),
    RoutePolicy("/dashboard", ("GET",), needs_key=False),
    RoutePolicy("/web/{path:path}", ("GET",), needs_key=False),
    RoutePolicy("/openapi.json", ("GET",), needs_key=False),
)
_BY_PATH = {p.path: p for p in POLICIES}
_BY_PREFIX = {p.path.partition("{")[0]: p for p in POLICIES if p.path.endswith(":path}")}
_STRICT = RoutePolicy("", ())


def policy_of(path: str) -> RoutePolicy:
    """The policy of a request's path; the strictest for a path that has none."""
    found = _BY_PATH.get(path)
    if found is None:
        found = next((p for start, p in _BY_PREFIX.items() if path.startswith(start)), None)
    return found or _STRICT
