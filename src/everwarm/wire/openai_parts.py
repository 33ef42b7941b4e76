"""What the answers of OpenAI's formats have in common: usage, and log probabilities."""

from __future__ import annotations

from typing import Final

from everwarm.events import TokenLogprob, TurnRecord
from everwarm.wire.format import Chunk

LEAST_LOGPROB: Final = -9999.0
"""How OpenAI spells a probability of zero; JSON has no infinity."""


def usage(record: TurnRecord) -> Chunk:
    """The token counts of an answer, as both completions formats spell them."""
    return {
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "total_tokens": record.prompt_tokens + record.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": record.cached_tokens},
    }


def finite(logprob: float) -> float:
    """A log probability that JSON can spell."""
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB  # a NaN too


def logprob_entry(token: TokenLogprob) -> Chunk:
    """One token of a reply with its log probability and the likeliest alternatives."""
    top = [_entry(text, logprob) for _, text, logprob in token.top]
    return _entry(token.text, token.logprob) | {"top_logprobs": top}


def _entry(text: str, logprob: float) -> Chunk:
    encoded = list(text.encode("utf-8", "replace"))
    return {"token": text, "logprob": finite(logprob), "bytes": encoded}
