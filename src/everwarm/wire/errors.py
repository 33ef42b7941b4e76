"""Errors as OpenAI spells them: status, body and headers.

Only messages of our own tree reach a client; what is outside it, or should not have left its
layer, becomes one fixed sentence.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

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
_TEXT_TOO = {"content", "stop"}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def refusal(invalid: ValidationError) -> RequestError:
    """Say the first fault of a body, by its path; a wrong `role` is the only union there is.

    Never repeats input: names stand in the path only where they look like a parameter's name.
    """
    fault = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    kind, path = fault["type"], _path(fault["loc"])
    if kind.startswith("union_tag"):
        path += ".role"
    said = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    words = _WORDS.get(kind, said.replace("False", "false"))
    if kind == "list_type" and path.rpartition(".")[2] in _TEXT_TOO:
        words = "must be text or a list of texts"
    return RequestError(f"{path or 'A field of the body'}: {words}.", param=path or None)


def _path(loc: tuple[int | str, ...]) -> str:
    if loc[0] == "logit_bias":
        return "logit_bias"
    if loc[0] == "messages" and len(loc) > 2:
        loc = loc[:2] + loc[3:]  # behind the index stands the role that chose the model
    names: list[str] = []
    for part in loc:
        if isinstance(part, str) and not _PLAIN_NAME.fullmatch(part):
            break
        names.append(str(part))
    return ".".join(names)
