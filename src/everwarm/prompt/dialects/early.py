"""How each tool-call format shows a call's name while the call is still being written.

Whole calls are parsed by the codec; only what must be seen early is here.
"""

from __future__ import annotations

import json
import re

_JSON_NAME = re.compile(r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"')
_JSON_ARGUMENTS = re.compile(r'\s*,\s*"arguments"\s*:\s*(?=\{)')
_NAMES = {
    "qwen3_coder": re.compile(r"\s*<function=([^\s<>]+)>"),
    "glm47": re.compile(r"\s*([^\s<>]+)\s*<arg_key>"),
    "laguna": re.compile(r"\s*([^\s<>]+)\s*<arg_key>"),
    "longcat": re.compile(r"\s*([^\s<>]+)\s*<longcat_arg_key>"),
    "minimax_m2": re.compile(r"\s*<invoke name=\"?([^\s<>\"]+)\"?>"),
    "json_tools": _JSON_NAME,
}


def early_name(tool_format: str | None, body: str) -> tuple[str, int] | None:
    """The call's name and where it ends in `body`, once it is complete."""
    pattern = _NAMES.get(tool_format or "")
    found = pattern.match(body) if pattern else None
    if not found:
        return None
    name = found[1]
    if tool_format == "json_tools":
        try:
            name = str(json.loads(f'"{name}"'))
        except ValueError:
            return None
    return name, found.end()


def arguments_start(tool_format: str | None, body: str, at: int) -> int | None:
    """Where JSON arguments that can be passed on as they come begin, `at` being the name's end."""
    found = _JSON_ARGUMENTS.match(body, at) if tool_format == "json_tools" else None
    return found.end() if found else None


class JsonObject:
    """Follows one JSON object through a text that arrives in parts."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.closed = False
        self.in_string = False
        self._depth = 0
        self._escaped = False

    def advance(self, text: str, close: str) -> None:
        """Read on, at most to the object's end or, outside strings, to what may be `close`."""
        while self.at < len(text) and not self.closed:
            rest = text[self.at : self.at + len(close)]
            if rest and not self.in_string and close.startswith(rest):
                return
            self._read(text[self.at])
            self.at += 1

    def _read(self, c: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self.in_string:
            self._escaped = c == "\\"
            self.in_string = c != '"'
        elif c == '"':
            self.in_string = True
        elif c in "{[":
            self._depth += 1
        elif c in "}]":
            self._depth -= 1
            self.closed = self._depth == 0
