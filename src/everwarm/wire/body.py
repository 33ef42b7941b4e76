"""What the bodies of several formats have in common: how they are read, and types of fields.

A field that would change the answer is honoured, or refused by its path; all others are noted
(`fields.py`). `null` is the same as absent. A refusal never repeats input, and the first fault ends
the reading: a body with a million faults costs as much as one with a single fault.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from everwarm.errors import RequestError
from everwarm.request import Sampling
from everwarm.wire.error_json import refusal
from everwarm.wire.fields import Noted, Refused, WireObject
from everwarm.wire.structure import check_structure

Name = Annotated[str, Field(min_length=1, max_length=256)]
ModelName = Annotated[str, Field(max_length=1024)]
Speaker = Annotated[str, Field(max_length=256)]
"""The name of who says a message; an empty one is no name."""
NonEmpty = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=2**53)]
TINY_TOP_P = 1e-6
"""So small a nucleus holds only the likeliest token, which is greedy sampling."""

_MAX_DEPTH = 64
B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]
"""A list whose first fault ends the reading. Every list in a body is one; a test checks this."""


def read(body: bytes, model: type[B], *, tags: frozenset[str] = frozenset()) -> B:
    """Read a body. Raises RequestError with the path of the first field that is wrong.

    `tags`: the names by which unions choose; they are no part of a path. The largest bodies may
    take a second, so this does not run on the event loop.
    """
    check_structure(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as e:
        where = f"line {e.lineno}, column {e.colno}"
        raise RequestError(f"The body is not valid JSON ({where}).") from None
    if not isinstance(value, dict):
        raise RequestError("The body must be a JSON object.")
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise refusal(e, tags) from None


def _shallow(value: object) -> object:
    level: list[Any] = [[value]]
    for _ in range(_MAX_DEPTH):
        nests = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for nest in nests for v in nest if isinstance(v, dict | list)]
        if not level:
            return value
    raise ValueError(f"must not be nested deeper than {_MAX_DEPTH} levels")


def _texts_of(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _bias_of(value: object) -> object:
    if not isinstance(value, dict):
        return value
    if not all(k.isascii() and k.isdigit() and len(k) < 10 for k in value):
        raise ValueError("must have token ids as keys")
    return {int(k): v for k, v in value.items()}


Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Bias = Annotated[
    dict[int, Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=1024, fail_fast=True),
    BeforeValidator(_bias_of),
]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_shallow)]
"""An object whose content we do not define; it is not too deep to be walked."""

MAX_SAMPLES: Final = 8
Samples = Annotated[int, Field(ge=1, le=MAX_SAMPLES)]
"""How many replies are wanted to one prompt: OpenAI's `n`."""

_UpTo16 = Annotated[Many[NonEmpty], Field(max_length=16)]
Texts = Annotated[_UpTo16, BeforeValidator(_texts_of, json_schema_input_type=NonEmpty | _UpTo16)]
"""One text or a list of them, none empty."""
Books = Annotated[Any, Noted("for the provider's own books")]
Cached = Annotated[Any, Noted("everything is cached")]
Moderation = Annotated[Any, Refused("Nothing here moderates: leave it out.")]
Untrained = Annotated[Any, Noted("a hint that no local model is trained for")]
Remark = Annotated[Any, Noted("a provider's remark on what was said")]


class StreamOptions(WireObject):
    """How OpenAI's streams are to be sent."""

    include_usage: bool = False
    include_obfuscation: Annotated[Any, Noted("no stream is obfuscated here")] = None


def one_part(value: object, *, kind: str = "text") -> object:
    """Content as a list of parts; clients may send a single text instead."""
    return [{"type": kind, "text": value}] if isinstance(value, str) else value


def session_name(given: object) -> str | None:
    """The name that a client gives to its conversation, if it can be one."""
    return given if isinstance(given, str) and 0 < len(given) <= 256 else None


def sampling(temperature: float, top_p: float, **more: Any) -> Sampling:
    """Make a `Sampling` of the fields that all formats have; an empty nucleus is greedy."""
    greedy = top_p <= TINY_TOP_P
    return Sampling(
        temperature=0.0 if greedy else temperature, top_p=1.0 if greedy else top_p, **more
    )
