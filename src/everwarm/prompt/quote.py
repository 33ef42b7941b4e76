"""Quotes what clients write, so that texts of control tokens in it stay text.

Before a conversation is rendered, each character by which a client's words could become (part of)
a control token is replaced by a stand-in: half a surrogate, which no text of a client or a template
can hold. In the template's output, a control token is one only if no stand-in is in its text:

    client      say <|im_start|>
    quoted      say ▯▯▯▯▯▯▯▯▯▯▯▯
    rendered    <|im_start|>user\\nsay ▯▯▯▯▯▯▯▯▯▯▯▯<|im_end|>
    unquoted    <|im_start|>user\\nsay <|im_start|><|im_end|>     two control tokens, not three

One character stands for one, so that lengths and places do not change. Besides whole texts of
control tokens, what could complete one across two strings is quoted: the beginning of one at a
string's end, the end of one at its start, and a string that fits between two of the template's own.

Some templates look for their markers of reasoning in an assistant's text (`</think>`), and take the
reasoning out. For these templates the markers are not quoted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from everwarm.codec import Codec
from everwarm.errors import RequestError
from everwarm.prompt.template_input import Dicts

_STAND_INS: Final = re.compile("[\ud800-\udfff]")
_FIRST, _MANY = 0xD800, 2048
_SHORT = 256  # characters up to which a quoted text is cached: tools have thousands of these


class Quotes:
    """Quotes what clients write for one model. Nothing changes it: any thread may use it.

    `reasoning`: the markers that the template reads in an assistant's text, if it does.
    """

    def __init__(
        self,
        controls: Collection[str],
        constants: Collection[str] = (),
        reasoning: tuple[str, str] | None = None,
    ) -> None:
        letters = sorted({c for text in controls for c in text})[:_MANY]
        self._stand_ins = {ord(c): _FIRST + i for i, c in enumerate(letters)}
        self._letters = {chr(_FIRST + i): c for i, c in enumerate(letters)}
        self._control = any_of(controls)
        self._begins = set(_fragments(controls, ends=False))
        self._ends = set(_fragments(controls, ends=True))
        self._longest = max(map(len, controls), default=0)
        self._fitting = _between(controls, constants)
        inside = (t for t in controls if reasoning and t in reasoning[1])
        self._closes = max(inside, key=len, default="")
        self._reasoning = any_of([t for t in controls if t in "\0".join(reasoning or ())])
        self._short = lru_cache(2**16)(self._quote)

    def messages(self, dicts: Sequence[Mapping[str, Any]]) -> Dicts:
        """A template's messages with all that a client wrote in them quoted."""
        try:
            return [self._message(d) for d in dicts]
        except RecursionError:
            raise too_deep("A call's arguments are", "messages") from None

    def tools(self, dicts: Sequence[Mapping[str, Any]] | None) -> Dicts | None:
        """A template's tools, quoted."""
        try:
            return [self._call(d) for d in dicts] if dicts else None
        except RecursionError:
            raise too_deep("A tool's parameters are", "tools") from None

    def args(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """A template's other arguments, quoted."""
        return {k: self.value(v) for k, v in args.items()}

    def text(self, text: str) -> str:
        """A text, quoted."""
        return self._short(text) if len(text) < _SHORT else self._quote(text)

    def value(self, value: Any) -> Any:
        """A JSON value, all its texts and keys quoted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(k): self.value(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(v) for v in value]
        return value

    def unquoted(self, text: str) -> str:
        """What a quoted text says."""
        if text.isascii():
            return text
        return _STAND_INS.sub(lambda m: self._letters.get(m[0], "\ufffd"), text)

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        said = {k: v if k == "role" else self.value(v) for k, v in message.items()}
        if message["role"] == "assistant":
            said["content"] = self._reply(message["content"])
        if "tool_calls" in message:
            said["tool_calls"] = [self._call(c) for c in message["tool_calls"]]
        return said

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """A call or a tool; the names of its fields and its type are not a client's words."""
        function = {k: self.value(v) for k, v in call["function"].items()}
        said = {k: self.value(v) for k, v in call.items() if k not in ("type", "function")}
        return {**said, "type": call["type"], "function": function}

    def _reply(self, text: str) -> str:
        """An assistant's text, without quotes for markers of reasoning that the template reads."""
        read = text.rfind(self._closes) + len(self._closes) if self._closes else 0
        if not self._closes or read < len(self._closes):
            return self.text(text)
        out, end = [], 0
        for m in self._reasoning.finditer(text, 0, read):
            out += [self._quote(text[end : m.start()]), m[0]]
            end = m.end()
        return "".join([*out, self._quote(text[end:])])

    def _quote(self, text: str) -> str:
        if not text.isascii():
            text = _STAND_INS.sub("\ufffd", text)
        text = self._control.sub(lambda m: m[0].translate(self._stand_ins), text)
        bare = text.strip()
        if not bare:
            return text
        if bare in self._fitting or any(bare[:n] in self._ends for n in range(1, self._longest)):
            text = self._at(text, len(text) - len(text.lstrip()))
        if any(bare[-n:] in self._begins for n in range(1, self._longest)):
            text = self._at(text, len(text.rstrip()) - 1)
        return text

    def _at(self, text: str, at: int) -> str:
        """The text with this one character quoted."""
        return text[:at] + text[at].translate(self._stand_ins) + text[at + 1 :]


def quotes_of(codec: Codec, reasoning: tuple[str, str] | None = None) -> Quotes:
    """Quotes for a model."""
    return Quotes(codec.control_texts, codec.template_constants, reasoning)


def too_deep(what: str, param: str) -> RequestError:
    """The refusal of values that are nested too deep."""
    return RequestError(f"{what} nested too deep to be rendered. Flatten them.", param=param)


def any_of(texts: Collection[str]) -> re.Pattern[str]:
    """Matches any of these texts, the longest where several begin at one place."""
    longest_first = sorted((t for t in texts if t), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"[^\s\S]")


def _fragments(controls: Collection[str], *, ends: bool) -> Iterator[str]:
    """Beginnings or ends of control tokens' texts, but none of letters alone."""
    for text in controls:
        for n in range(1, len(text)):
            part = text[n:] if ends else text[:n]
            if not part.isalnum():
                yield part


def _between(controls: Collection[str], constants: Collection[str]) -> set[str]:
    """What gives a control token's text between two constants of a template: `<` and `>`."""
    longest = max(map(len, controls), default=0)
    before = {c[-n:] for c in constants for n in range(1, longest) if len(c) >= n}
    behind = {c[:n] for c in constants for n in range(1, longest) if len(c) >= n}
    found = set()
    for text in controls:
        starts = [n for n in range(1, len(text)) if text[:n] in before]
        stops = [n for n in range(1, len(text)) if text[n:] in behind]
        found |= {text[a:b].strip() for a in starts for b in stops if a < b}
    return found - {""}
