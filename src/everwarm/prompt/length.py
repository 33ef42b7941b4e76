"""Refuses what is far too long before it is rendered or tokenized.

Texts that no context holds are refused by their length in characters. Where that leaves doubt,
they are tokenized in slices until there are too many tokens. So the context bounds the work, and
not the length of what a client sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from everwarm.codec import Codec
from everwarm.errors import TooLong
from everwarm.messages import Reasoning, Text, ToolCall
from everwarm.request import Request

_SLICE: Final = 2**16
_PLAIN: Final = 8
"""Characters per token above which texts are checked: prose and code have four."""
_SLACK: Final = 8
"""A text has fewer tokens than its slices together, by less than an eighth."""


@dataclass(frozen=True, slots=True)
class Length:
    """The most tokens that a conversation may have: `context`, `times` over."""

    codec: Codec
    context: int
    times: int = 1

    def check(self, texts: Iterable[str], param: str = "messages") -> None:
        """Raise TooLong where these texts are far too long, at a bounded cost.

        What is only a little too long passes: `check_made` counts exactly.
        """
        texts = list(texts)
        n_chars = sum(map(len, texts))
        most = self.context * self.times
        if n_chars <= most * _PLAIN:
            return
        if n_chars > most * self.codec.longest_token:
            raise too_long(n_chars // self.codec.longest_token, self.context, param)
        n = 0
        for text in texts:
            for at in range(0, len(text), _SLICE):
                n += len(self.codec.encode(_whole_characters(text[at : at + _SLICE])))
                if n > most + most // _SLACK:
                    raise too_long(most, self.context, param)

    def check_made(self, n: int) -> None:
        """Raise TooLong where a prompt of `n` tokens leaves no room for a reply."""
        if n >= self.context:
            raise TooLong(f"The prompt has {n:,} tokens; {_reads(self.context)}")

    def check_request(self, request: Request) -> None:
        """`check` all that a request says."""
        self.check(_texts(request))


def too_long(n: int, context: int, param: str) -> TooLong:
    """The refusal of a prompt of more than `n` tokens."""
    return TooLong(f"The prompt has more than {n:,} tokens; {_reads(context)}", param=param)


def _reads(context: int) -> str:
    return f"this model reads {context:,} with the reply. Shorten it."


def _texts(request: Request) -> Iterator[str]:
    for part in (p for m in request.messages for p in m.parts):
        match part:
            case Text(text) | Reasoning(text):
                yield text
            case ToolCall(arguments=arguments):
                yield arguments
    for tool in request.tools:
        yield tool.description
        yield json.dumps(dict(tool.parameters or {}), default=str)


def _whole_characters(text: str) -> str:
    """The text without halves of surrogates, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
