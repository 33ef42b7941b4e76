"""Prompts without a conversation's memory: texts and ids to be continued, and counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.messages import MessageId, tidied
from everwarm.prompt.encoder import TextEncoder
from everwarm.prompt.length import Length
from everwarm.prompt.marks import ends_of
from everwarm.prompt.splice import Frame, Splicer
from everwarm.prompt.template_input import tool_dicts
from everwarm.request import Request
from everwarm.tokens import Mark, Prompt, tokens_of

_HEAD = MessageId("raw")
COUNTED_CONTEXTS = 4
"""How many contexts' tokens are counted for a client; a longer conversation is refused."""


def raw_prompt(
    codec: Codec, raw: str | tuple[int, ...], vocab_size: int, length: Length | None = None
) -> Prompt:
    """A prompt of exactly this text, or these ids. Control tokens' texts become their ids.

    Raises RequestError where it is far longer than `length`.
    """
    if length is not None and isinstance(raw, str):
        length.check([raw], "prompt")
    ids = codec.encode(raw) if isinstance(raw, str) else raw
    if any(not 0 <= t < vocab_size for t in ids):  # a text model may name a token for images
        raise RequestError(f"prompt: token ids go from 0 to {vocab_size - 1:,}.", param="prompt")
    tokens = tokens_of(ids)
    if not tokens:
        raise RequestError(
            "The prompt has no tokens: there is nothing to continue.", param="prompt"
        )
    marks = tuple(Mark(at, "prompt") for at in ends_of(None, len(tokens)) if at)
    return Prompt(tokens, marks, len(tokens), _HEAD)


def count_tokens(
    codec: Codec, request: Request, splicer: Splicer, length: Length | None = None
) -> int:
    """How many tokens a conversation has when it is read from the start. Remembers nothing.

    Raises RequestError where it is several times as long as `length`.
    """
    if length is not None:
        replace(length, times=COUNTED_CONTEXTS).check_request(request)
    frame = Frame(tool_dicts(request.tools) or None, request.template_args, datetime.now())
    text = splicer.render(tidied(request.messages), frame)
    return len(TextEncoder(codec, splicer.quotes).encode(text).tokens)
