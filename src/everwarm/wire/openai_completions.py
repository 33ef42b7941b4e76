"""OpenAI's completions: a body becomes a `Request`, without messages and without a template.

The prompt is text, or token ids, and is continued as it stands. A list of prompts is answered as
one turn for each (`ParsedRequest.others`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from everwarm.errors import RequestError
from everwarm.request import Request
from everwarm.wire import body as wb
from everwarm.wire.extensions import Everwarm
from everwarm.wire.fields import Refused, ignored_paths
from everwarm.wire.format import ParsedRequest
from everwarm.wire.openai_completions_stream import Encoder
from everwarm.wire.sampling_fields import SamplingFields, sampling_of

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
_TextOrIds = str | _Ids


class Body(SamplingFields):
    model: wb.ModelName | None = None
    prompt: Annotated[
        wb.Many[_TextOrIds],
        BeforeValidator(_prompts_of, json_schema_input_type=_TextOrIds | list[str] | list[_Ids]),
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
    b = wb.read(body, Body, tags=frozenset({"str"}))
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
        ignored=ignored_paths(b),
    )
    return ParsedRequest(
        request,
        b.stream,
        partial(Encoder, shows_usage=not b.stream or b.stream_options.include_usage),
        others=tuple(replace(request, raw=prompt) for prompt in others),
    )
