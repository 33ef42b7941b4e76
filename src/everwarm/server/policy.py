"""Who may ask for what: one table, in which every route stands.

Host and Origin are checked for all of them, by `guard.py`. A path that is not here needs a key too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a path is guarded. `shape`: how its errors are spelled.

    `needs_key` False is for what says nothing of a person: that a server is here, and alive.
    """

    path: str
    methods: tuple[str, ...]
    needs_key: bool = True
    shape: Shape = "openai"


POLICIES = (
    Policy("/v1/chat/completions", ("POST",)),
    Policy("/v1/completions", ("POST",)),
    Policy("/v1/responses", ("POST",)),
    Policy("/v1/responses/{id}", ("GET", "DELETE")),
    Policy("/v1/responses/{id}/input_items", ("GET",)),
    Policy("/v1/responses/{id}/cancel", ("POST",)),
    Policy("/v1/messages", ("POST",), shape="anthropic"),
    Policy("/v1/messages/count_tokens", ("POST",), shape="anthropic"),
    Policy("/v1/models", ("GET",)),
    Policy("/v1/models/{name:path}", ("GET",)),
    Policy("/api/turns", ("GET",)),
    Policy("/api/ps", ("GET",)),
    Policy("/api/sessions", ("GET", "POST")),
    Policy("/api/sessions/import", ("POST",)),
    Policy("/api/sessions/{id}", ("GET", "PATCH", "DELETE")),
    Policy("/api/sessions/{id}/tree", ("GET",)),
    Policy("/api/sessions/{id}/send", ("POST",)),
    Policy("/api/sessions/{id}/regenerate", ("POST",)),
    Policy("/api/sessions/{id}/edit", ("POST",)),
    Policy("/api/sessions/{id}/stop", ("POST",)),
    Policy("/api/sessions/{id}/stream", ("GET",)),
    Policy("/api/sessions/{id}/branches", ("POST",)),
    Policy("/api/sessions/{id}/select", ("POST",)),
    Policy("/api/sessions/{id}/undo", ("POST",)),
    Policy("/api/sessions/{id}/export", ("GET",)),
    Policy("/api/sessions/{id}/prepare", ("POST",)),
    Policy("/api/sessions/{id}/compact", ("POST",)),
    Policy("/api/sessions/{id}/uncompact", ("POST",)),
    Policy("/api/turns/{id}/cancel", ("POST",)),
    Policy("/api/dashboard", ("GET",)),
    Policy("/api/cache/tree", ("GET",)),
    Policy("/api/cache/pin", ("POST",)),
    Policy("/api/cache/drop", ("POST",)),
    Policy("/metrics", ("GET",)),
    Policy("/health", ("GET",), needs_key=False),
    Policy("/ready", ("GET",)),
    Policy("/", ("GET",), needs_key=False),
    Policy("/api/hello", ("GET",), needs_key=False),
    Policy("/api/version", ("GET",), needs_key=False),
    Policy("/dashboard", ("GET",), needs_key=False),
    Policy("/web/{path:path}", ("GET",), needs_key=False),
    Policy("/openapi.json", ("GET",), needs_key=False),
)
_BY_PATH = {p.path: p for p in POLICIES}
_BY_PREFIX = {p.path.partition("{")[0]: p for p in POLICIES if p.path.endswith(":path}")}
_STRICT = Policy("", ())


def policy_of(path: str) -> Policy:
    """The policy of a request's path; the strictest where there is none."""
    found = _BY_PATH.get(path)
    if found is None:
        found = next((p for start, p in _BY_PREFIX.items() if path.startswith(start)), None)
    return found or _STRICT
