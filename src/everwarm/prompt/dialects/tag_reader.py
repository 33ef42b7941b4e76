"""Reads arguments that are written as tags, one by one or nested, and tells them as JSON."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from everwarm.prompt.dialects.dialect import Tags
from everwarm.prompt.dialects.scan import begins, blank_end, words_of

_DEEPEST = 32
"""How deep tags may stand in each other."""


class TagReader:
    """Reads arguments one by one while they come. Live: owned by one call reader.

    `schema`: the tool's parameters. `ends`: what may stand behind the last argument. `at` is how
    far the text was read.
    """

    def __init__(self, tags: Tags, schema: Mapping[str, Any], ends: Sequence[str], at: int) -> None:
        self._tags, self._schema, self._ends, self.at = tags, schema, ends, at
        self._open, self._close = tags.open.strip(), tags.close.strip()
        self._key = _key_pattern(tags)
        self._lead = tags.middle.endswith("\n")
        self._tail = "\n" if tags.close.startswith("\n") else ""
        self._n = 0
        self._searched = 0
        self._in_value = False
        self._is_text = False
        self._typed = ""
        self._name = ""
        self.state: Literal["more", "ended", "broken"] = "more"

    def read(self, text: str, *, final: bool) -> str:
        """The JSON that became certain. Sets `state`: whether the arguments are complete."""
        out = ""
        while self.state == "more":
            step = self._value(text, final) if self._in_value else self._between(text, final)
            if step is None:
                break
            out += step
        return out

    def _between(self, text: str, final: bool) -> str | None:
        """Before an argument, or behind the last."""
        at = blank_end(text, self.at)
        found = self._key.match(text, at)
        if found:
            return self._begin_value(found, text)
        if any(text.startswith(e, at) for e in self._ends):
            self.state, self.at = "ended", at
        elif final:
            self.state = "ended" if at == len(text) and not self._ends else "broken"
        elif at == len(text) or begins(text, at, [self._open, *self._ends]):
            close = text.find(self._close, at)
            if not text.startswith(self._open, at) or close < 0:
                return None
            self.state = "broken"  # an argument that closes and has no name
        else:
            self.state = "broken"
        return "}" if self._n else "{}"

    def _begin_value(self, found: re.Match[str], text: str) -> str:
        self._name, self.at, self._in_value = found["key"], found.end(), True
        self._typed = str(found.lastgroup) if self._tags.others else ""
        types = _types(self._schema, self._name)
        self._is_text = self._typed == "string" or (not self._typed and types == {"string"})
        lead = "{" if not self._n else ", "
        self._n += 1
        return f"{lead}{json.dumps(self._name, ensure_ascii=False)}: "

    def _value(self, text: str, final: bool) -> str | None:
        """In an argument's value."""
        if self._lead:
            if self.at == len(text):
                self._wait(final)
                return None
            self.at += text.startswith("\n", self.at)
            self._lead = False
        end = text.find(self._close, max(self.at, self._searched))
        if end < 0:
            self._searched = max(self.at, len(text) - len(self._close) + 1)
            self._wait(final)
            return None
        body = text[self.at : end]
        self.at = end + len(self._close)
        self._in_value, self._lead = False, self._tags.middle.endswith("\n")
        body = body.removesuffix(self._tail) if self._tail else body
        if self._is_text:
            return json.dumps(body, ensure_ascii=False)
        return self._typed_value(body)

    def _wait(self, final: bool) -> None:
        """Wait for the value's end; where no text follows, the arguments are broken."""
        self.state = "broken" if final else self.state

    def _typed_value(self, body: str) -> str:
        types = _types(self._schema, self._name)
        value = value_of(body, set() if self._typed == "other" else types)
        return json.dumps(value, ensure_ascii=False)


class NestedReader:
    """Reads lists and objects as tags in tags, when all have come. Live: owned by a call reader.

        <at>here</at><list><item>1</item><item>2</item></list><filter><k>v</k></filter>

    `schema`: the tool's parameters. `ends`: what stands behind the last argument.
    """

    def __init__(self, tags: Tags, schema: Mapping[str, Any], ends: Sequence[str], at: int) -> None:
        self._tags, self._schema, self._end, self.at = tags, schema, (ends or ("",))[0], at
        middle = re.escape(tags.middle)
        self._open = re.compile(re.escape(tags.open) + r"(?P<key>[^<>\"\s/]+?)" + middle)
        self._from, self._text = at, ""
        self.state: Literal["more", "ended", "broken"] = "more"

    def read(self, text: str, *, final: bool) -> str:
        """The JSON of all arguments. Sets `state`: whether they are complete."""
        end = text.find(self._end, self.at) if self._end else len(text) if final else -1
        if end < 0:
            self.at = max(self._from, len(text) - len(self._end) + 1)
            self.state = "broken" if final else "more"
            return ""
        self._text = text[self._from : end]
        try:
            value, at = self._members(0, self._schema, 0)
            self.state = "ended" if at == len(self._text) else "broken"
        except ValueError:
            self.state = "broken"
        self.at = end
        return json.dumps(value, ensure_ascii=False) if self.state == "ended" else ""

    def _members(self, at: int, schema: Mapping[str, Any], depth: int) -> tuple[Any, int]:
        """Tags in a row: an object, or a list where each is an item. And where they end."""
        if depth > _DEEPEST:
            raise ValueError("too deep")
        pairs: list[tuple[str, Any]] = []
        while found := self._open.match(self._text, blank_end(self._text, at)):
            key = found["key"]
            value, at = self._value(found.end(), key, _inner(schema, key, depth), depth)
            pairs.append((key, value))
        at = blank_end(self._text, at)
        types = declared_types(schema)
        is_list = "object" not in types and all(k == self._tags.item for k, _ in pairs)
        if depth and pairs and is_list:
            return [v for _, v in pairs], at
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key twice")
        return dict(pairs), at

    def _value(self, at: int, key: str, schema: Mapping[str, Any], depth: int) -> tuple[Any, int]:
        close = self._tags.close.replace("«key»", key).strip()
        types = declared_types(schema)
        inner = self._open.match(self._text, blank_end(self._text, at))
        if inner and types != {"string"}:
            value, at = self._members(at, schema, depth + 1)
            if not self._text.startswith(close, at):
                raise ValueError("a tag that does not close")
            return value, at + len(close)
        end = self._text.find(close, at)
        if end < 0:
            raise ValueError("a tag that does not close")
        return _leaf(self._text[at:end], types), end + len(close)


def _key_pattern(tags: Tags) -> re.Pattern[str]:
    middles = [f"(?P<string>{_loose(tags.middle)})"]
    if tags.others:
        others = dict.fromkeys(_loose(m) for _, m in tags.others if m != tags.middle)
        middles += [f"(?P<other>{'|'.join(others)})", '(?P<untold>"?>)']
    return re.compile(
        _loose(tags.open) + r"\s*(?P<key>[^<>\"\n]+?)\s*(?:" + "|".join(middles) + ")"
    )


def _loose(literal: str) -> str:
    """A literal's pattern: blanks may stand between its words, quotes may be missing."""
    return r"\s*".join(re.escape(w).replace('"', '"?') for w in words_of(literal))


def _types(schema: Mapping[str, Any], name: str) -> set[str]:
    """The JSON types that a parameter may have; only a string where it is not declared."""
    properties = schema.get("properties")
    declared = properties.get(name) if isinstance(properties, Mapping) else None
    return declared_types(declared) if isinstance(declared, Mapping) else {"string"}


def declared_types(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema allows; `any` where it does not say."""
    given = schema.get("type")
    types = {given} if isinstance(given, str) else {t for t in given or () if isinstance(t, str)}
    values = [*schema["enum"]] if isinstance(schema.get("enum"), list) else []
    values += [schema["const"]] if "const" in schema else []
    if not types and values:
        types = {"string" if isinstance(v, str) else "any" for v in values}
    for key in ("anyOf", "oneOf", "allOf"):
        for option in schema.get(key) or ():
            types |= declared_types(option) if isinstance(option, Mapping) else set()
    return types or {"any"}


def value_of(body: str, types: set[str]) -> Any:
    """The value of a text: JSON or a Python literal where the types allow it, else the text."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(body.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if _is_of(value, types):
            return value
    if body.strip().lower() in ("true", "false") and "boolean" in types:
        return body.strip().lower() == "true"
    return body


def _is_of(value: object, types: set[str]) -> bool:
    if not types or "any" in types:
        return _is_json(value)
    match value:
        case None:
            kind = {"null"}
        case bool():
            kind = {"boolean"}
        case int():
            kind = {"integer", "number"}
        case float():
            kind = {"number"}
        case list():
            kind = {"array"}
        case dict():
            kind = {"object"}
        case _:
            kind = {"text"} if "string" in types else {"none"}
    return bool(kind & types) and _is_json(value)


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _leaf(body: str, types: set[str]) -> Any:
    if not body and "array" in types:
        return []
    if not body and "object" in types:
        return {}
    return value_of(body, types)


def _inner(schema: Mapping[str, Any], key: str, depth: int) -> Mapping[str, Any]:
    """The schema of what stands under a key. An argument that is not declared is text."""
    properties, items = schema.get("properties"), schema.get("items")
    found = properties.get(key) if isinstance(properties, Mapping) else None
    if found is None and depth:
        found = items if isinstance(items, Mapping) else {}
    return found if isinstance(found, Mapping) else {"type": "string"}
