"""Server-sent events: the frames of a streamed answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
"""The frame that ends a stream of chunks."""


def dump(data: Mapping[str, Any]) -> bytes:
    """Spell a value as JSON without line breaks."""
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:
        # orjson refuses a lone surrogate, which a model can write as a JSON escape in a call.
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()


def event(data: Mapping[str, Any]) -> bytes:
    """Make one frame of a value."""
    return b"data: " + dump(data) + b"\n\n"


def named(data: Mapping[str, Any]) -> bytes:
    """Make one frame of a value, with its `type` as the event's name."""
    return b"event: " + str(data["type"]).encode() + b"\n" + event(data)
