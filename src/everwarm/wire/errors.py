"""Errors as OpenAI spells them: status, body and headers.

Only messages of our own tree reach a client; what is outside it, or should not have left its
layer, becomes one fixed sentence.
"""

from __future__ import annotations

from typing import Any

from everwarm.errors import Cancelled, EngineError, Forbidden, Overloaded, RequestError

INTERNAL = "The server failed at this request. Its log says why; other requests are not touched."
CANCELLED = 499
"""The status for a request that was stopped on purpose; mostly nobody is there to read it."""

_TYPES = {401: "authentication_error", 403: "permission_error"}


def openai_error(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Say an exception in OpenAI's error shape, with its status and extra headers."""
    match error:
        case RequestError():
            kind = _TYPES.get(error.status, "invalid_request_error")
            headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            code = error.code or _code(error)
            return error.status, _body(error.message, kind, error.param, code), headers
        case Overloaded():
            wait = {"retry-after": str(error.retry_after_s)}
            return error.status, _body(error.message, "server_error", code="overloaded"), wait
        case EngineError():
            return error.status, _body(error.message, "server_error", code="engine_error"), {}
        case Cancelled():
            return CANCELLED, _body(error.message, "server_error", code="cancelled"), {}
        case _:
            return 500, _body(INTERNAL, "server_error", code="internal_error"), {}


def _code(error: RequestError) -> str | None:
    if isinstance(error, Forbidden):
        return "invalid_api_key" if error.status == 401 else "forbidden"
    return None


def _body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
