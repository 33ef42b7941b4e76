"""Draw the next token: mlx-lm's samplers and penalties, with a random key of each job's own."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import mlx.core as mx
from mlx_lm.sample_utils import make_logits_processors, make_sampler

from everwarm.request import Sampling
from everwarm.tokens import Tokens

WHOLE = 1 << 30
GREEDY_BELOW: Final = 1e-6
"""At such temperatures and nuclei only the likeliest token is left. Smaller ones leave float32."""
MOST: Final = 1e6
"""Of a temperature or a penalty. More changes nothing, and could leave float32."""
FORBIDDEN: Final = -1e9
"""Far below any logit, and finite: a grammar may still have to draw it."""


class Forced:
    """Says given tokens, then an end of turn, whatever the logits are. As `Sampler` otherwise."""

    def __init__(self, tokens: Tokens[int], end: int) -> None:
        self._left = iter([*tokens, end])
        self._end = end

    def __call__(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        last = logits[:, -1, :]
        token = next(self._left, self._end)
        return mx.array([token]), (last - mx.logsumexp(last, keepdims=True)).squeeze(0)


class Sampler:
    """One job's way from logits to a token. Live: engine thread only.

    `past` is the whole sequence, not what was prefilled, so a hit samples as a miss does.
    """

    def __init__(self, sampling: Sampling, past: Tokens[int]) -> None:
        s = _bounded(sampling)
        self._draw: Callable[[mx.array], mx.array] = make_sampler(
            temp=s.temperature, top_p=s.top_p, min_p=s.min_p, top_k=s.top_k
        )
        repetition = s.repetition_penalty if s.repetition_penalty != 1.0 else None
        self._on_all: list[Any] = make_logits_processors(
            dict(s.logit_bias) or None, repetition, s.repetition_context
        )
        self._on_reply: list[Any] = make_logits_processors(
            presence_penalty=s.presence_penalty or None,
            presence_context_size=WHOLE,
            frequency_penalty=s.frequency_penalty or None,
            frequency_context_size=WHOLE,
        )
        self._sees_past = bool(self._on_all or self._on_reply)
        self._past = mx.array(list(past[-max(s.repetition_context, 1) :])) if self._on_all else None
        self._reply: mx.array | None = None
        self._draws = s.temperature > 0
        self._seed = s.seed if s.seed is not None else secrets.randbits(32)
        self._n = 0

    def __call__(self, logits: mx.array, mask: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """Logits (1, n, vocabulary) -> (token (1,), log-probabilities (vocabulary,)), both lazy.

        `mask` (vocabulary,): which tokens may be drawn at all.
        """
        logprobs = self._logprobs(logits, mask)
        if self._draws:
            # The n-th token of a seed is always the same draw, whoever else draws in between.
            mx.random.seed((self._seed * 1_000_003 + self._n) % (1 << 63))
        token = self._draw(logprobs)
        self._note(token)
        return token, logprobs.squeeze(0)

    def say(self, logits: mx.array, token: int) -> tuple[mx.array, mx.array]:
        """The same for a token that is not drawn."""
        said = mx.array([token])
        logprobs = self._logprobs(logits)
        self._note(said)
        return said, logprobs.squeeze(0)

    def _logprobs(self, logits: mx.array, mask: mx.array | None = None) -> mx.array:
        last = logits[:, -1, :].astype(mx.float32)
        for processor in self._on_all:
            last = processor(self._past, last)
        if self._reply is not None:
            for processor in self._on_reply:
                last = processor(self._reply, last)
        if mask is not None:
            last = mx.where(mask, last, -mx.inf)
        return last - mx.logsumexp(last, keepdims=True)

    def _note(self, token: mx.array) -> None:
        self._n += 1
        if self._sees_past:
            self._past = None if self._past is None else mx.concatenate([self._past, token])
            self._reply = token if self._reply is None else mx.concatenate([self._reply, token])


def _bounded(s: Sampling) -> Sampling:
    """The same sampling with parameters that keep every logit finite in float32."""
    is_greedy = s.temperature < GREEDY_BELOW or s.top_p < GREEDY_BELOW
    return replace(
        s,
        temperature=0.0 if is_greedy else min(s.temperature, MOST),
        top_p=1.0 if is_greedy else s.top_p,
        repetition_penalty=_between(1 / MOST, s.repetition_penalty, MOST),
        presence_penalty=_between(-MOST, s.presence_penalty, MOST),
        frequency_penalty=_between(-MOST, s.frequency_penalty, MOST),
        logit_bias={t: _between(FORBIDDEN, b, -FORBIDDEN) for t, b in s.logit_bias.items()},
    )


def _between(least: float, value: float, most: float) -> float:
    return max(least, min(value, most))
