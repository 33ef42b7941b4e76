"""How a model reasons: how hard, in words that its template takes, and between which markers.

Clients send the words of their own providers, and a template may raise at one that it does not
know. Which ones it takes is found by rendering when the model is loaded; another word becomes the
nearest of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.job import Markers
from everwarm.messages import Message, Reasoning, Text
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.scan import words_of
from everwarm.prompt.splice import Frame, Splicer
from everwarm.tokens import Tokens, tokens_of

EFFORTS: Final = ("minimal", "low", "medium", "high", "xhigh", "max")
_EFFORT: Final = "reasoning_effort"
_USER: Final = Message("user", (Text("u1w"),))
_LAST: Final = 16
"""Tokens at a prompt's end in which a marker of reasoning may stand."""


class Thinking:
    """The reasoning of one model. Nothing changes it: any thread may use it.

    `markers`: None where it does not reason.
    """

    def __init__(self, codec: Codec, dialect: Dialect, splicer: Splicer) -> None:
        self._codec, self._reasoning = codec, dialect.reasoning
        self.markers = _markers(codec, dialect, splicer)
        taken = tuple(w for w in EFFORTS if _takes(splicer, {_EFFORT: w}))
        self._taken = taken if taken or _takes(splicer, {}) else EFFORTS

    def fitted(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The template's arguments with an effort that it takes, or without any."""
        word = args.get(_EFFORT)
        if word is None or word in self._taken or word not in EFFORTS:
            return args
        if not self._taken:
            return {k: v for k, v in args.items() if k != _EFFORT}
        at = EFFORTS.index(word)
        nearest = min(self._taken, key=lambda w: (abs(EFFORTS.index(w) - at), -EFFORTS.index(w)))
        return {**args, _EFFORT: nearest}

    def is_open(self, tokens: Tokens[int]) -> bool:
        """Whether a prompt ends inside reasoning."""
        return self._reasoning is not None and self._ends(tokens, self._reasoning[0])

    def may_open(self, tokens: Tokens[int]) -> bool:
        """Whether a reply may open reasoning: the prompt neither opened nor closed any."""
        if self._reasoning is None or self.is_open(tokens):
            return False
        return not self._ends(tokens, self._reasoning[1])

    def _ends(self, tokens: Tokens[int], marker: str) -> bool:
        return self._codec.decode(tokens[-_LAST:]).rstrip().endswith(marker.rstrip())


def _takes(splicer: Splicer, args: Mapping[str, Any]) -> bool:
    try:
        splicer.render((_USER,), Frame(args=args))
    except RequestError:
        return False
    return True


def _markers(codec: Codec, dialect: Dialect, splicer: Splicer) -> Markers | None:
    if dialect.reasoning is None:
        return None
    closing, end = _between(splicer), dialect.reasoning[1]
    if end not in closing:  # the template drops reasoning
        marked = dialect.glue + dialect.text[0]
        closing = end + marked if marked else f"\n{end}\n\n"
    own = (c for c in dialect.calls if c.open and not c.bare)
    calls = tuple((c.open, next(iter(words_of(c.close)), "")) for c in own)
    return Markers(dialect.reasoning, calls, tokens_of(codec.encode(closing)))


def _between(splicer: Splicer) -> str:
    """What the template writes between a thought and an answer."""
    reply = Message("assistant", (Reasoning("r1w"), Text("a1w")))
    try:
        text = splicer.render((_USER, reply), Frame(), scaffold=False)
    except RequestError:
        return ""
    between, said, _ = text.partition("r1w")[2].partition("a1w")
    return between if said else ""
