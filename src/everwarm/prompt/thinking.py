"""The markers of a model's dialect, and how its template ends reasoning."""

from __future__ import annotations

from datetime import datetime

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.job import Markers
from everwarm.messages import Message, Reasoning, Text
from everwarm.prompt.dialects.dialect import Dialect
from everwarm.prompt.dialects.json_text import words_of
from everwarm.prompt.splice import Frame, Splicer
from everwarm.tokens import tokens_of


def markers_of(codec: Codec, dialect: Dialect, splicer: Splicer) -> Markers | None:
    """The markers of a model that reasons; None where it does not."""
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
    asked = Message("user", (Text("u1w"),))
    reply = Message("assistant", (Reasoning("r1w"), Text("a1w")))
    frame = Frame(None, {}, datetime(2001, 2, 3))
    try:
        text = splicer.render((asked, reply), frame, scaffold=False)
    except RequestError:
        return ""
    between, said, _ = text.partition("r1w")[2].partition("a1w")
    return between if said else ""
