"""A model whose logits are noise, held by a grammar."""

from __future__ import annotations

import numpy as np

from everwarm.codec import Codec
from everwarm.engine.compiled_grammar import Grammars

WIDTH = 49152 + 64
"""SmolLM2's vocabulary, with room for markers."""


class Writer:
    """Writes what random logits say. `blanks`: what is added to the logits of blank tokens."""

    def __init__(self, codec: Codec, grammars: Grammars, blanks: float = 0.0) -> None:
        self._grammars, self._eos = grammars, codec.eos_ids
        blank = [not codec.decode([i]).strip() for i in range(WIDTH)] if blanks else [False] * WIDTH
        self._bias = np.where(np.array(blank), blanks, 0.0)

    def say(self, grammar: str, seed: int, most: int = 200) -> list[int] | None:
        """The ids of a reply; None where it did not come to an end."""
        rng, matcher, out = np.random.default_rng(seed), self._grammars.matcher(grammar), []
        for _ in range(most):
            allowed = np.flatnonzero(np.array(matcher.mask(WIDTH)))
            logits = 3 * rng.normal(size=allowed.size) + self._bias[allowed]
            token = int(allowed[np.argmax(logits + rng.gumbel(size=allowed.size))])
            if token in self._eos:
                return out
            matcher.take(token)
            out.append(token)
        return None
