"""Reads arguments whose keys are tags, with lists and objects as tags in tags.

<at>here</at><list><item>1</item><item>2</item></list><filter><k>v</k></filter>
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from everwarm.prompt.dialects.dialect import Tags
from everwarm.prompt.dialects.json_text import blank_end
from everwarm.prompt.dialects.tag_reader import declared_types, value_of

_DEEPEST = 32


class NestedReader:
    """Reads the arguments of one call, when its end has come. Live: owned by one call reader.

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
