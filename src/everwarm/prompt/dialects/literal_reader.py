"""Reads arguments that are an object in a model's own spelling, and tells them as JSON.

    open KEY equals VALUE, KEY equals VALUE close      {at:<|"|>here<|"|>,n:[1]}      (at="x", n=1)

Texts are told while they grow, all else value by value. Objects and lists may be nested.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from everwarm.prompt.dialects.dialect import Literals
from everwarm.prompt.dialects.scan import begins, blank_end
from everwarm.prompt.dialects.tag_reader import declared_types, value_of
from everwarm.prompt.partial_reply import partial

_STOPS = ",{}[]()"
_PAIRS = {"{": "}", "[": "]", "(": ")"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}
_ESCAPES |= {"0": "\0", "\n": "", "/": "/", "\\": "\\", "'": "'", '"': '"'}
_HEX = {"x": 2, "u": 4, "U": 8}
_LiteralStep = Callable[[str, bool], str | None]


class LiteralReader:
    """Reads the arguments of one call. Live: owned by one call reader.

    `schema`: the tool's parameters. `ends`: what may stand behind the arguments where they break
    off. `at` is how far the text was read; at first, where they open.
    """

    def __init__(
        self, literals: Literals, schema: Mapping[str, Any], ends: Sequence[str], at: int
    ) -> None:
        self._own, self._schema, self.at = literals, schema, at
        self._ends = [e for e in ends if e]
        self._quotes = sorted(literals.quotes, key=len, reverse=True)
        self._step: _LiteralStep = self._opening
        self._open: list[tuple[str, bool]] = []  # what closes it, and whether it is an object
        self._quote, self._in_key = "", False
        self._name, self._lead = "", ""
        self.state: Literal["more", "ended", "broken"] = "more"

    def read(self, text: str, *, final: bool) -> str:
        """The JSON that became certain. Sets `state`: whether the arguments are complete."""
        out = ""
        while self.state == "more":
            told = self._step(text, final)
            if told is None:
                break
            out += told
        return out

    # --- steps: each returns what it tells, None where more text is needed ---

    def _opening(self, text: str, _: bool) -> str | None:
        self.at += 1
        return self._enter(self._own.close, is_object=True)

    def _item(self, text: str, final: bool) -> str | None:
        """Before a key, a value, or what closes an object or a list."""
        if self._is_empty(text, final):
            return None if self.state == "more" else ""
        close, is_object = self._open[-1]
        self._in_key = is_object and self._step == self._item
        c = text[self.at]
        if c == close and (self._in_key or not is_object):
            return self._leave()
        quote = next((q for q in self._quotes if text.startswith(q, self.at)), "")
        if not final and begins(text, self.at, [q for q in self._quotes if len(q) > len(quote)]):
            return None
        if quote:
            self.at += len(quote)
            self._quote, self._step = quote, self._text
            self._name = "" if self._in_key else self._name
            return self._begin() + '"'
        if c in _PAIRS and not self._in_key:
            self.at += 1
            return self._begin() + self._enter(_PAIRS[c], is_object=c == "{")
        return self._word(text, final)

    def _value(self, text: str, final: bool) -> str | None:
        """Before a key's value."""
        return self._item(text, final)

    def _word(self, text: str, final: bool) -> str | None:
        """A key, a number, a name: told when it is complete, since only then it is known."""
        end = self._word_end(text, _STOPS + self._is * self._in_key)
        if end == len(text) and not final:
            return None
        said = text[self.at : end].strip()
        if not said:
            return self._break()
        self.at = end
        if self._in_key:
            self._name, self._step = said, self._between
            return self._begin() + json.dumps(said, ensure_ascii=False)
        self._step = self._after
        return self._begin() + json.dumps(value_of(said, self._types), ensure_ascii=False)

    def _text(self, text: str, final: bool) -> str | None:
        """In a text, which may be a key."""
        escapes = self._quote[0] in "\"'"
        if escapes and text.startswith("\\", self.at):
            return self._escape(text, final)
        end = text.find(self._quote, self.at)
        stop = text.find("\\", self.at) if escapes else -1
        if stop >= 0 and (end < 0 or stop < end):
            return self._grow(text[self.at : stop])
        if end >= 0:
            piece = self._grow(text[self.at : end])
            self.at += len(self._quote)
            self._step = self._between if self._in_key else self._after
            return piece + '"'
        held = 0 if final else partial(text[self.at :], [self._quote])
        if final:
            self.state = "ended"
        return self._grow(text[self.at : len(text) - held]) or None

    def _escape(self, text: str, final: bool) -> str | None:
        """At a backslash, as Python and JSON have it."""
        kind = text[self.at + 1 : self.at + 2]
        unit = text[self.at : self.at + 2 + _HEX.get(kind, 0)]
        if not kind or len(unit) < 2 + _HEX.get(kind, 0):
            return self._grow(unit) if final else None
        if kind not in _HEX:
            self.at += len(unit)
            return _shown(_ESCAPES.get(kind, unit))
        try:
            said = chr(int(unit[2:], 16))
        except (ValueError, OverflowError):
            return self._grow(unit)
        self.at += len(unit)
        return json.dumps(said)[1:-1]  # half of a pair stays an escape

    def _between(self, text: str, final: bool) -> str | None:
        """Behind a key."""
        if self._is_empty(text, final):
            return None if self.state == "more" else ""
        if text[self.at] != self._is:
            return self._break()
        self.at, self._step = self.at + 1, self._value
        return ": "

    def _after(self, text: str, final: bool) -> str | None:
        """Behind a value."""
        if self._is_empty(text, final):
            return None if self.state == "more" else ""
        c = text[self.at]
        if c == self._open[-1][0]:
            return self._leave()
        if c != ",":
            return self._break()
        self.at, self._lead, self._step = self.at + 1, ", ", self._item
        return ""

    # --- what they share ---

    @property
    def _is(self) -> str:
        return self._own.equals if len(self._open) == 1 else ":"

    @property
    def _types(self) -> set[str]:
        """The types of an argument that may be text; any type elsewhere."""
        properties = self._schema.get("properties")
        known = properties.get(self._name) if isinstance(properties, Mapping) else None
        types = declared_types(known) if isinstance(known, Mapping) else set()
        return types if len(self._open) == 1 and "string" in types else {"any"}

    def _enter(self, close: str, *, is_object: bool) -> str:
        self._open.append((close, is_object))
        self._step = self._item
        return "{" if is_object else "["

    def _leave(self) -> str:
        _, is_object = self._open.pop()
        self.at, self._lead, self._step = self.at + 1, "", self._after
        if not self._open:
            self.state = "ended"
        return "}" if is_object else "]"

    def _begin(self) -> str:
        """What stands before a key or value."""
        lead, self._lead = self._lead, ""
        return lead

    def _grow(self, piece: str) -> str:
        self.at += len(piece)
        self._name += piece if self._in_key else ""
        return _shown(piece)

    def _word_end(self, text: str, stops: str) -> int:
        """Where a word ends: at one of `stops` or of the ends; else at the end of the text."""
        firsts = {e[0] for e in self._ends}
        for at in range(self.at, len(text)):
            if text[at] in stops:
                return at
            if text[at] in firsts and begins(text, at, self._ends):
                return at if any(text.startswith(e, at) for e in self._ends) else len(text)
        return len(text)

    def _is_empty(self, text: str, final: bool) -> bool:
        """Skip blanks. Whether nothing can be read there: the text or the call ends, or may end."""
        self.at = blank_end(text, self.at)
        at_end = self.at == len(text)
        if any(text.startswith(e, self.at) for e in self._ends) or (final and at_end):
            self.state = "ended"
            return True
        return at_end or (not final and begins(text, self.at, self._ends))

    def _break(self) -> str:
        self.state = "broken"
        return ""


def _shown(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
