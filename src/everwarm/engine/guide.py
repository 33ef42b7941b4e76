"""What a reply's next token may be, beyond what its sampling says: rules on the tokens so far.

- A thinking budget: when it is spent, the tokens that close the reasoning are said.
- A grammar: holds the answer, not the reasoning before it.

The engine draws a token before it knows the one in front. Where a rule needs to know it, `waits`
says so, and the draw comes after `take`; the model's step is on its way meanwhile.
"""

from __future__ import annotations

from collections import deque

import mlx.core as mx

from everwarm.codec import Codec
from everwarm.engine.compiled_grammar import Grammars, Matcher
from everwarm.engine.sampling import Forced, Sampler
from everwarm.engine.section_tracker import SectionTracker
from everwarm.job import Job


class Guide:
    """Draws one reply's tokens. Live: engine thread only. `take` is told each token but the end.

    With a grammar the sections are followed only until the answer begins: from there on, what looks
    like a marker is part of it.
    """

    def __init__(self, job: Job, codec: Codec, grammars: Grammars | None) -> None:
        self._codec, self._grammars = codec, grammars
        self._sections: SectionTracker | None = None
        self._matcher: Matcher | None = None
        self._closing: deque[int] = deque()
        self._cutting = self.thinking_cut = False
        self._budget, self._grammar, self._markers = job.thinking_budget, job.grammar, job.markers
        self._sampler: Sampler | Forced
        if job.forced is not None:
            self._sampler = Forced(job.forced, min(codec.eos_ids))
            self._budget = self._grammar = None
            return
        self._sampler = Sampler(job.sampling, job.tokens)
        if job.markers and (self._budget is not None or self._grammar):
            self._sections = SectionTracker(codec, job.markers)
        if self._grammar and not self._in_reasoning:
            self._matcher = self._begin(self._grammar.reply)

    @property
    def waits(self) -> bool:
        """Whether the token behind the next one depends on the next one."""
        near = self._sections is not None and self._budget is not None
        spent = near and self._sections.n_reasoning + 1 >= (self._budget or 0)  # type: ignore[union-attr]
        return self._grammar is not None or spent

    def draw(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """Logits (1, n, vocabulary) -> (token (1,), log-probabilities (vocabulary,)), both lazy."""
        if isinstance(self._sampler, Forced):
            return self._sampler(logits)
        if self._is_spent():
            assert self._markers is not None
            self._closing.extend(self._markers.closing)
            self._cutting = True
        if self._closing:
            return self._sampler.say(logits, self._closing.popleft())
        mask = self._matcher.mask(logits.shape[-1]) if self._matcher else None
        return self._sampler(logits, mask)

    def take(self, token: int) -> None:
        """Note a token of the reply. Raises EngineError where a grammar cannot go on."""
        self.thinking_cut |= self._cutting
        if self._matcher is not None:
            self._matcher.take(token)
        s = self._sections
        if s is None:
            return
        was = s.in_reasoning
        s.take(token)
        if self._grammar is None:
            return
        if was and not s.in_reasoning:
            self._begin_answer(s.tail)
        elif s.in_reasoning:
            self._matcher = None
        elif not s.may_open:
            self._sections = None

    def _begin_answer(self, behind: str) -> None:
        """The reasoning is over. `behind`: what its last token brought beyond the marker."""
        assert self._grammar is not None
        self._sections = None
        self._matcher = self._begin(self._grammar.answer)
        for token in self._codec.encode(behind) if behind else ():
            self._matcher.take(token)

    def _begin(self, grammar: str) -> Matcher:
        assert self._grammars is not None
        return self._grammars.matcher(grammar)

    @property
    def _in_reasoning(self) -> bool:
        return self._sections is not None and self._sections.in_reasoning

    def _is_spent(self) -> bool:
        s, budget = self._sections, self._budget
        if s is None or budget is None or self._closing:
            return False
        return s.in_reasoning and s.n_reasoning >= budget
