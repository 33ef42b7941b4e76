"""How hard to think, in a word that the chat template takes.

Clients send the words of their own providers, and a template may raise at one that it does not
know. Which ones it takes is found by rendering when the model is loaded; another word becomes the
nearest of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from everwarm.errors import RequestError
from everwarm.messages import Message, Text
from everwarm.prompt.splice import Frame, Splicer

WORDS: Final = ("minimal", "low", "medium", "high", "xhigh", "max")
_NAME: Final = "reasoning_effort"
_ASKED: Final = (Message("user", (Text("u1w"),)),)


class Efforts:
    """The words that one template takes. Nothing changes it: any thread may use it."""

    def __init__(self, splicer: Splicer) -> None:
        taken = tuple(w for w in WORDS if _takes(splicer, {_NAME: w}))
        self._taken = taken if taken or _takes(splicer, {}) else WORDS

    def fitted(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The template's arguments with a word that it takes, or without any."""
        word = args.get(_NAME)
        if word is None or word in self._taken or word not in WORDS:
            return args
        if not self._taken:
            return {k: v for k, v in args.items() if k != _NAME}
        at = WORDS.index(word)
        nearest = min(self._taken, key=lambda w: (abs(WORDS.index(w) - at), -WORDS.index(w)))
        return {**args, _NAME: nearest}


def _takes(splicer: Splicer, args: Mapping[str, Any]) -> bool:
    try:
        splicer.render(_ASKED, Frame(None, args, datetime(2001, 2, 3)))
    except RequestError:
        return False
    return True
