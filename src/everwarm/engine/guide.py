"""What a reply's next token may be, beyond what its sampling says: rules on the tokens so far.

The engine draws a token before it knows the one in front. Where a rule needs to know it, `waits`
says so, and the draw comes after `take`; the model's step is on its way meanwhile.
"""

from __future__ import annotations

from collections import deque

import mlx.core as mx

from everwarm.codec import Codec
from everwarm.engine.sampling import Forced, Sampler
from everwarm.engine.sections import Sections
from everwarm.job import Job


class Guide:
    """Draws one reply's tokens. Live: engine thread only. `take` is told each token but the end."""

    def __init__(self, job: Job, codec: Codec) -> None:
        self._sampler: Sampler | Forced
        if job.forced is not None:
            self._sampler = Forced(job.forced, min(codec.eos_ids))
        else:
            self._sampler = Sampler(job.sampling, job.tokens)
        self._sections: Sections | None = None
        self._budget = 0
        if job.markers and job.thinking_budget is not None and job.forced is None:
            self._sections, self._budget = Sections(codec, job.markers), job.thinking_budget
            self._close = job.markers.closing
        self._closing: deque[int] = deque()
        self._cutting = self.thinking_cut = False

    @property
    def waits(self) -> bool:
        """Whether the token behind the next one depends on the next one."""
        return self._sections is not None and self._sections.n_reasoning + 1 >= self._budget

    def draw(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """Logits (1, n, vocabulary) -> (token (1,), log-probabilities (vocabulary,)), both lazy."""
        if self._is_spent():
            self._closing.extend(self._close)
            self._cutting = True
        if self._closing:
            assert isinstance(self._sampler, Sampler)
            return self._sampler.say(logits, self._closing.popleft())
        return self._sampler(logits)

    def take(self, token: int) -> None:
        """Note a token of the reply."""
        self.thinking_cut |= self._cutting
        if self._sections is not None:
            self._sections.take(token)

    def _is_spent(self) -> bool:
        s = self._sections
        if s is None or self._closing:
            return False
        return s.in_reasoning and s.n_reasoning >= self._budget
