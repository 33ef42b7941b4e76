"""Reads calls and arguments that are JSON objects, also while they are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from everwarm.prompt.dialects.dialect import CallSyntax
from everwarm.prompt.dialects.scan import begins, blank_end

KEYS = frozenset(
    ("name", "tool_name", "arguments", "parameters", "type", "function", "tool_call_id", "id")
)
_NAMES, _ARGUMENTS = ("name", "tool_name"), ("arguments", "parameters")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_STRICT = json.JSONDecoder(parse_constant=_no_constant)
_LENIENT = json.JSONDecoder(parse_constant=_no_constant, strict=False)


class JsonReader:
    """Follows one JSON object. `at` is how far it was read."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.closed = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def advance(self, text: str, ends: Sequence[str]) -> None:
        """Read on, to the object's end or, outside strings, to what may be one of `ends`."""
        firsts = {e[0] for e in ends if e}
        while self.at < len(text) and not self.closed:
            if not self._in_string and text[self.at] in firsts and begins(text, self.at, ends):
                return
            self._read(text[self.at])
            self.at += 1

    def _read(self, c: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped = c == "\\"
            self._in_string = c != '"'
        elif c == '"':
            self._in_string = True
        elif c in "{[":
            self._depth += 1
        elif c in "}]":
            self._depth -= 1
            self.closed = self._depth == 0


class JsonArgumentReader:
    """Arguments that are a JSON object behind a name."""

    def __init__(self, ends: Sequence[str], at: int) -> None:
        self._object, self._ends, self._from, self.at = JsonReader(at), ends, at, at
        self.state = "more"

    def read(self, text: str, *, final: bool) -> str:
        """The arguments, when they are complete."""
        self._object.advance(text, self._ends)
        self.at = self._object.at
        if self._object.closed:
            self.state = "ended"
            return text[self._from : self.at]
        if final or any(text.startswith(e, self.at) for e in self._ends):
            self.state = "broken"
        return ""


def valid_arguments(text: str) -> str | None:
    """The arguments as JSON text, as they were spelled where that is valid; None: they are not.

    Line ends inside strings are written as JSON has them. Arguments may be a JSON text in a string;
    none at all are an empty object.
    """
    stripped = text.strip()
    if not stripped or stripped == "null":
        return "{}"
    for decoder in (_STRICT, _LENIENT):
        try:
            value = decoder.decode(stripped)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, str):
            return valid_arguments(value) if not value.lstrip().startswith('"') else None
        if not isinstance(value, dict):
            return None
        return stripped if decoder is _STRICT else json.dumps(value, ensure_ascii=False)
    return None


def called(text: str, syntax: CallSyntax) -> tuple[str, str] | None:
    """Name and arguments of a call that is this JSON object; None where it is no call."""
    try:
        found = _members(text)
        inner = found.get("function")
        if inner is not None and inner.startswith("{"):
            found = _members(inner)
        if syntax.names_key:
            return _by_key(found)
        return _by_keys(found, syntax.keys)
    except (ValueError, RecursionError, IndexError, StopIteration):
        return None


def _by_key(found: dict[str, str]) -> tuple[str, str] | None:
    """A call whose one key is its name."""
    if len(found) != 1:
        return None
    ((name, raw),) = found.items()
    arguments = valid_arguments(raw) if raw.startswith("{") else None
    return (name, arguments) if arguments is not None and name else None


def _by_keys(found: dict[str, str], own: tuple[str, str] | None) -> tuple[str, str] | None:
    names, holders = (own[0], *_NAMES) if own else _NAMES, (own[1], *_ARGUMENTS) if own else ()
    name = next((n for k in (*names, "function") if (n := _string(found.get(k)))), "")
    raw = next((found[k] for k in (*holders, *_ARGUMENTS) if k in found), "{}")
    arguments = valid_arguments(raw)
    return (name, arguments) if name and arguments is not None else None


def _string(raw: str | None) -> str:
    value = _LENIENT.decode(raw) if raw and raw.startswith('"') else ""
    return value if isinstance(value, str) else ""


def _members(text: str) -> dict[str, str]:
    """The values of an object by their keys, each as it is spelled."""
    out: dict[str, str] = {}
    at = blank_end(text, blank_end(text, 0) + 1)
    while text[at] != "}":
        if text[at] != '"':
            raise ValueError("a key is a string")
        key, at = _LENIENT.raw_decode(text, at)
        at = blank_end(text, at)
        if text[at] != ":":
            raise ValueError("a value follows its key")
        begin = blank_end(text, at + 1)
        _, end = _LENIENT.raw_decode(text, begin)
        out[key] = text[begin:end]
        at = blank_end(text, end)
        if text[at] == ",":
            at = blank_end(text, at + 1)
            if text[at] == "}":
                raise ValueError("a key follows a comma")
        elif text[at] != "}":
            raise ValueError("a comma stands between two members")
    if text[at + 1 :].strip():
        raise ValueError("nothing follows an object")
    return out
