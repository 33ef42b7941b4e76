"""The four ways to ask for an answer, all of the same form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from everwarm.events import Event, Progress
from everwarm.wire import anthropic, openai_chat, openai_completions, openai_responses, sse
from everwarm.wire.errors import anthropic_error, openai_error
from everwarm.wire.format import Chunk, Error, Format, Head, ParsedRequest, told
from everwarm.wire.stored_items import StoredItems


class _ChatEncoder:
    """The encoder of chat completions, with what `format.Encoder` asks for."""

    def __init__(self, head: Head, *, include_usage: bool) -> None:
        self._own = openai_chat.Encoder(
            head.id, head.model, head.created, include_usage=include_usage
        )

    def chunks(self, event: Event) -> list[Chunk]:
        return self._own.chunks(event)

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        return [self._own.keepalive() | told(progress)]

    def failed(self, error: Exception) -> list[Chunk]:
        return [openai_error(error)[1]]

    def fold(self, events: Iterable[Event]) -> Chunk:
        return self._own.fold(events)


def _chat(body: bytes, namespace: str) -> ParsedRequest:
    asked = openai_chat.parse(body, namespace=namespace)

    def encoder(head: Head) -> _ChatEncoder:
        return _ChatEncoder(head, include_usage=asked.include_usage)

    return ParsedRequest(asked.request, asked.stream, encoder, session=asked.session)


def _calling(own: str) -> Callable[[Exception], Error]:
    """Errors of a format that calls the messages something else."""

    def error(e: Exception) -> Error:
        status, body, headers = openai_error(e)
        if body["error"]["param"] == "messages":
            body["error"]["param"] = own
        return status, body, headers

    return error


CHAT = Format("chatcmpl-", _chat, sse.event, sse.DONE, openai_error)
COMPLETIONS = Format("cmpl-", openai_completions.parse, sse.event, sse.DONE, _calling("prompt"))
RESPONSES = Format("resp_", openai_responses.parse, sse.named, b"", _calling("input"))
"""Without stored responses; `responses` makes the one that finds them."""
MESSAGES = Format("msg_", anthropic.parse, sse.named, b"", anthropic_error)


def responses(stored: StoredItems) -> Format:
    """The format of responses that may refer to stored ones."""
    return replace(RESPONSES, parse=partial(openai_responses.parse, stored=stored))
