"""The four ways to ask for an answer, all of the same form.

    X.py            the body's model, and `parse`, which makes a `ParsedRequest` of a body
    X_messages.py   the conversation in a body, where it takes more than a page
    X_tools.py      the same of its tools
    X_stream.py     `Encoder`, which makes chunks or one response of a turn's events

A further format is such a set of files, and a line in each table below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from pydantic import BaseModel

from everwarm.wire import anthropic, openai_chat, openai_completions, openai_responses, sse
from everwarm.wire.error_json import anthropic_error, openai_error
from everwarm.wire.format import Error, Format
from everwarm.wire.stored_items import StoredItems


def _naming(own: str) -> Callable[[Exception], Error]:
    """OpenAI's errors for a format whose field for the conversation is not `messages`."""

    def error(e: Exception) -> Error:
        status, body, headers = openai_error(e)
        if body["error"]["param"] == "messages":
            body["error"]["param"] = own
        return status, body, headers

    return error


CHAT = Format("chatcmpl-", openai_chat.parse, sse.event, sse.DONE, openai_error)
COMPLETIONS = Format("cmpl-", openai_completions.parse, sse.event, sse.DONE, _naming("prompt"))
RESPONSES = Format("resp_", openai_responses.parse, sse.named, b"", _naming("input"))
"""Without stored responses; `responses` makes the format that finds them."""
MESSAGES = Format("msg_", anthropic.parse, sse.named, b"", anthropic_error)

BODIES: Final[Mapping[str, type[BaseModel]]] = {
    "/v1/chat/completions": openai_chat.Body,
    "/v1/completions": openai_completions.Body,
    "/v1/responses": openai_responses.Body,
    "/v1/messages": anthropic.Body,
    "/v1/messages/count_tokens": anthropic.CountBody,
}
"""What each path reads: `reference.py` and `openapi.py` describe it."""


def responses(stored: StoredItems) -> Format:
    """The format of responses that may refer to stored ones."""
    return replace(RESPONSES, parse=partial(openai_responses.parse, stored=stored))
