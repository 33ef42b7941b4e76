"""Grammars, compiled for one model's tokens and kept: the only home of llguidance.

A grammar is text in llguidance's Lark. Its limits bound what one may cost: a grammar that is too
large is refused while it is compiled, a step that is too large ends its job.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final

import llguidance
import mlx.core as mx
import numpy as np

from everwarm.errors import EngineError

KEPT: Final = 64


class Matcher:
    """One reply against one grammar. Live: owned by one job."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def mask(self, width: int) -> mx.array:
        """Which of `width` tokens may come next, as booleans. The turn's end is one of them only
        where the grammar is complete. Raises EngineError where a step is too much for it."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        bits = np.unpackbits(packed, count=width, bitorder="little")
        return mx.array(bits.view(np.bool_))

    def take(self, token: int) -> None:
        """Go on by one token."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError("The grammar of this reply cannot be followed any further.")


class Grammars:
    """Compiles and keeps grammars of one tokenizer. Thread-safe.

    The tokenizer's own tables are made with the first grammar (seconds for a large vocabulary).
    """

    def __init__(self, tokenizer: Any, n_vocab: int, eos_ids: frozenset[int]) -> None:
        self._tokenizer, self._n_vocab, self._eos = tokenizer, n_vocab, sorted(eos_ids)
        self._tables: Any = None
        self._lock = threading.Lock()
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def check(self, grammar: str) -> None:
        """Compile a grammar, if it is not known. Raises ValueError with the reason it cannot be."""
        self._compile(grammar)

    def matcher(self, grammar: str) -> Matcher:
        """A matcher at the grammar's beginning. Raises ValueError as `check` does."""
        return Matcher(self._compile(grammar).deep_copy())

    def _compile(self, grammar: str) -> Any:
        with self._lock:
            found = self._compiled.get(grammar)
            if found is not None:
                self._compiled.move_to_end(grammar)
                return found
            if self._tables is None:
                self._tables = self._make_tables()
        made = llguidance.LLMatcher(self._tables, grammar, log_level=0)
        if made.is_error():
            raise ValueError(_reason(made.get_error()))
        # Some faults show only where the first token is asked for.
        begun = made.deep_copy()
        begun.compute_bitmask()
        if begun.is_error():
            raise ValueError("no reply can begin as it asks, or to find one takes too much")
        with self._lock:
            self._compiled[grammar] = made
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        return made

    def _make_tables(self) -> Any:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError("this model's tokenizer has no tables that a grammar could use")
        n_vocab = max(self._n_vocab, len(self._tokenizer))
        return llguidance.LLTokenizer(backend.to_str(), n_vocab=n_vocab, eos_token=self._eos)


def _reason(error: str) -> str:
    """What is wrong, in one printable line, without the grammar's text around it."""
    lines = error.strip().splitlines()
    head, found, rest = lines[0].partition("failed to compile JSON schema: ")
    said = [rest if found else head, *(s[7:] for s in lines if s.startswith("error: "))]
    return "".join(c for c in " ".join(said)[:300] if c.isprintable()).rstrip(".")
