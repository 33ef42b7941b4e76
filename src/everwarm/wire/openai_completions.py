"""OpenAI's completions: a text, or token ids, continued as they stand. No messages, no template.

A list of prompts is answered as so many turns (`ParsedRequest.others`), `n` replies to each.

What would change the answer is honoured or refused by its path, all else is noted (`fields.py`). A
refusal never repeats input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from everwarm import events as ev
from everwarm.errors import RequestError
from everwarm.events import Event, Progress, TokenLogprob, TurnRecord
from everwarm.request import Request
from everwarm.wire import body as wb
from everwarm.wire.errors import openai_error
from everwarm.wire.extensions import Everwarm
from everwarm.wire.fields import Refused, ignored_in
from everwarm.wire.format import Chunk, Head, ParsedRequest, told
from everwarm.wire.openai_chat import LEAST_LOGPROB
from everwarm.wire.sampled import Sampled, sampling_of

_DEFAULT_MAX_TOKENS = 16  # OpenAI's


MAX_PROMPTS: Final = 128
"""In one request. They are answered one after another."""


def _prompts_of(value: object) -> object:
    """One prompt as a list of one; a list of ids is a prompt itself."""
    if not isinstance(value, list) or not any(isinstance(v, str | list) for v in value):
        return [value]
    if len(value) > MAX_PROMPTS:
        raise ValueError(f"may be at most {MAX_PROMPTS} prompts; send the rest in other requests")
    if len({type(v) for v in value}) > 1:
        raise ValueError("must be one text, one list of token ids, or a list of one of both")
    return value


_Ids = wb.Many[Annotated[int, Field(ge=0, lt=2**31)]]
_Prompt = str | _Ids


class _Body(Sampled):
    model: Annotated[str, Field(max_length=1024)] | None = None
    prompt: Annotated[
        wb.Many[_Prompt],
        BeforeValidator(_prompts_of, json_schema_input_type=_Prompt | list[str] | list[_Ids]),
    ]
    max_tokens: Annotated[int, Field(ge=0, le=2**53)] = _DEFAULT_MAX_TOKENS
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    n: wb.Samples = 1
    best_of: wb.Samples | None = None
    echo: Annotated[Any, Refused("Leave it out: the prompt is yours already.")] = None
    suffix: Annotated[Any, Refused("The model reads from left to right: put it first.")] = None
    stream: bool = False
    stream_options: wb.StreamOptions = wb.StreamOptions()
    everwarm: Everwarm = Everwarm()
    user: wb.Books = None
    prompt_cache_key: wb.Cached = None


def parse(body: bytes, namespace: str = "") -> ParsedRequest:
    """Read a body. Raises RequestError with the path of the first field that is wrong."""
    b = wb.read(body, _Body, tags=frozenset({"str"}))
    if b.best_of not in (None, b.n):
        raise RequestError(
            "best_of: choosing among more replies than are sent is not supported; ask for n.",
            param="best_of",
        )
    first, *others = (p if isinstance(p, str) else tuple(p) for p in b.prompt)
    request = Request(
        model=b.model,
        messages=(),
        raw=first,
        sampling=sampling_of(b),
        max_tokens=b.max_tokens,
        stop=tuple(b.stop),
        logprobs=b.logprobs,
        namespace=namespace,
        history=b.everwarm.history,
        forced_reply=b.everwarm.reply,
        samples=b.n,
        ignored=ignored_in(b),
    )
    return ParsedRequest(
        request,
        b.stream,
        partial(Encoder, shows_usage=not b.stream or b.stream_options.include_usage),
        others=tuple(replace(request, raw=prompt) for prompt in others),
    )


class Encoder:
    """Says one turn's events in the words of OpenAI's completions. Belongs to one answer."""

    def __init__(self, head: Head, *, shows_usage: bool) -> None:
        self._head, self._shows_usage = head, shows_usage
        self._offset = 0

    def chunks(self, event: Event) -> list[Chunk]:
        """The chunks that an event becomes."""
        match event:
            case ev.TextDelta(text, logprobs) if text or logprobs:
                return [self._object(text, self._logprobs(logprobs), None)]
            case ev.Finished():
                return self._last(event)
            case _:
                return []

    def keepalive(self, progress: Progress | None) -> list[Chunk]:
        """A chunk that says nothing."""
        return [self._object("", None, None) | told(progress)]

    def failed(self, error: Exception) -> list[Chunk]:
        """The chunk that ends a stream."""
        return [openai_error(error)[1]]

    def fold(self, events: Iterable[Event]) -> Chunk:
        """The whole answer of a turn's events, which end with `Finished`."""
        chunks = [c for event in events for c in self.chunks(event)]
        whole = chunks[-1]
        choices = [c["choices"][0] for c in chunks if c["choices"]]
        shown = [c["logprobs"] for c in choices if c["logprobs"]]
        logprobs = {k: [x for s in shown for x in s[k]] for k in shown[0]} if shown else None
        text = "".join(c["text"] for c in choices)
        choice = choices[-1] | {"text": text, "logprobs": logprobs}
        return whole | {"choices": [choice]}

    def _last(self, end: ev.Finished) -> list[Chunk]:
        reason = "length" if end.reason == "length" else "stop"
        last = [self._object("", None, reason)]
        if self._shows_usage:
            last.append(
                {**self._object("", None, None), "choices": [], "usage": _usage(end.record)}
            )
        return last

    def _object(self, text: str, logprobs: Chunk | None, reason: str | None) -> Chunk:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return {
            "id": self._head.id,
            "object": "text_completion",
            "created": self._head.created,
            "model": self._head.model,
            "choices": [choice],
        }

    def _logprobs(self, tokens: Iterable[TokenLogprob]) -> Chunk | None:
        shown = list(tokens)
        if not shown:
            return None
        offsets = []
        for t in shown:
            offsets.append(self._offset)
            self._offset += len(t.text)
        return {
            "tokens": [t.text for t in shown],
            "token_logprobs": [_finite(t.logprob) for t in shown],
            "top_logprobs": [{text: _finite(p) for _, text, p in t.top} for t in shown],
            "text_offset": offsets,
        }


def _finite(logprob: float) -> float:
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB  # also where it is no number


def _usage(record: TurnRecord) -> dict[str, Any]:
    return {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "total_tokens": record.prompt_tokens + record.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": record.cached_tokens},
    }
