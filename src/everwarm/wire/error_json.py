"""Errors as OpenAI and as Anthropic spell them: status, body and headers.

Only the messages of our own error tree reach a client. Any other exception, and one that should not
have left its layer, becomes one fixed sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from everwarm.errors import (
    Cancelled,
    EngineDied,
    EngineError,
    Forbidden,
    Overloaded,
    PromptRefused,
    RequestError,
    TooLong,
)

INTERNAL = "The server failed at this request. Its log says why; other requests are not touched."
CANCELLED = 499
"""The status of a request that was stopped on purpose; the client has mostly left by then."""

_TYPES = {401: "authentication_error", 403: "permission_error"}


def openai_error(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Spell an exception in OpenAI's error shape, with its status and extra headers."""
    match error:
        case RequestError():
            kind = _TYPES.get(error.status, "invalid_request_error")
            headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            code = error.code or _code(error)
            return error.status, _body(error.message, kind, error.param, code), headers
        case Overloaded():
            wait = {"retry-after": str(error.retry_after_s)}
            return error.status, _body(error.message, "server_error", code="overloaded"), wait
        case EngineDied():
            soon = {"retry-after": "1"}  # a request waits in the server while the engine starts
            return error.status, _body(error.message, "server_error", code="engine_died"), soon
        case PromptRefused():
            wait = {"retry-after": str(error.retry_after_s)}
            return error.status, _body(error.message, "server_error", code="prompt_refused"), wait
        case EngineError():
            return error.status, _body(error.message, "server_error", code="engine_error"), {}
        case Cancelled():
            return CANCELLED, _body(error.message, "server_error", code="cancelled"), {}
        case _:
            return 500, _body(INTERNAL, "server_error", code="internal_error"), {}


_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def anthropic_error(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """As `openai_error`, in Anthropic's shape: its messages name the parameter."""
    status, body, headers = openai_error(error)
    message: str = body["error"]["message"]
    if isinstance(error, TooLong):
        message = f"prompt is too long: {message}"  # the words by which clients recognise it
    fallback = "invalid_request_error" if status < 500 else "api_error"
    kind = _ANTHROPIC.get(status, fallback)
    return status, {"type": "error", "error": {"type": kind, "message": message}}, headers


def _code(error: RequestError) -> str | None:
    if isinstance(error, Forbidden):
        return "invalid_api_key" if error.status == 401 else "forbidden"
    return None


def _body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not supported",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "union_tag_invalid": "must be system, developer, user, assistant or tool",
    "union_tag_not_found": "must be system, developer, user, assistant or tool",
}
_TEXT_TOO = {"content", "stop", "stop_sequences", "system"}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def refusal(invalid: ValidationError, tags: frozenset[str]) -> RequestError:
    """Make an error of the first fault of a body. `tags`: the names by which unions choose.

    It never repeats input: names stand in the path only where they look like a parameter's name.
    """
    fault = invalid.errors(include_url=False, include_input=False)[0]
    kind, path = fault["type"], _path(fault["loc"], tags)
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    words = _WORDS.get(kind, message.replace("False", "false"))
    if kind.startswith("union_tag"):
        context = fault.get("ctx", {})
        chosen_by = str(context.get("discriminator", "type")).strip("'")
        path += f".{chosen_by}"
        words = _WORDS[kind] if chosen_by == "role" else _choices(context)
    if kind == "list_type" and path.rpartition(".")[2] in _TEXT_TOO:
        words = "must be text or a list of texts"
    return RequestError(f"{path or 'A field of the body'}: {words}.", param=path or None)


def _choices(context: Mapping[str, Any]) -> str:
    tags = str(context.get("expected_tags", ""))
    return f"is not supported; there are {tags}" if tags else "is required"


def _path(loc: tuple[int | str, ...], tags: frozenset[str]) -> str:
    if loc[0] == "logit_bias":
        return "logit_bias"
    names: list[str] = []
    for n, part in enumerate(loc):
        if isinstance(part, str):
            if part in tags and n and isinstance(loc[n - 1], int):
                continue  # the tag of a union is no field
            if not _PLAIN_NAME.fullmatch(part):
                break
        names.append(str(part))
    return ".".join(names)
