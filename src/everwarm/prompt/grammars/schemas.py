"""Which schemas can be made a grammar: those of a bounded size whose references lead somewhere.

What a compiler of grammars takes for a schema grows faster than its size, in the memory and the
time of every step too. What a schema says for readers only (`description`) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

MAX_PARTS: Final = 20_000
"""Values in all schemas of a request."""
MAX_PROPERTIES: Final = 2_000
MAX_TEXT: Final = 8_192
"""Characters of a name, a value or a pattern."""

_FOR_READERS: Final = frozenset({"title", "description", "$comment", "default", "examples"})
_ALL_OF: Final = ("allOf",)
_ANY_OF: Final = ("anyOf", "oneOf")
Schema = Mapping[str, Any]


def why_not(schemas: Iterable[Schema]) -> str | None:
    """Why these schemas together cannot be made a grammar; None where they can be tried."""
    n = 0
    for schema in schemas:
        values: list[Any] = [schema]
        while values:
            value = values.pop()
            n += 1
            if n > MAX_PARTS:
                return f"the schemas have more than {MAX_PARTS:,} values"
            if isinstance(value, str) and len(value) > MAX_TEXT:
                return f"a name, value or pattern has more than {MAX_TEXT:,} characters"
            if isinstance(value, list):
                values += value
            elif isinstance(value, Mapping):
                if len(value) > MAX_PROPERTIES:
                    return f"an object has more than {MAX_PROPERTIES:,} properties"
                values += value
                values += [v for k, v in value.items() if not _is_for_readers(k, v)]
        if not _References(schema).lead_somewhere():
            return "a reference leads back to itself"
    return None


def _is_for_readers(key: str, value: object) -> bool:
    return key in _FOR_READERS and not isinstance(value, Mapping)


class _References:
    """The references of one schema. One leads somewhere if what it names does, without itself."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._good: set[int] = set()

    def lead_somewhere(self) -> bool:
        """Whether every part of the schema can be the beginning of a value."""
        parts: list[Any] = [self._root]
        while parts:
            part = parts.pop()
            if isinstance(part, Mapping):
                if not self._ends(part, frozenset()):
                    return False
                parts += part.values()
            elif isinstance(part, list):
                parts += part
        return True

    def _ends(self, part: object, above: frozenset[int]) -> bool:
        if not isinstance(part, Mapping) or id(part) in self._good:
            return True
        if id(part) in above or len(above) > 256:
            return False
        inner = above | {id(part)}
        needed = [self._named(part["$ref"])] if isinstance(part.get("$ref"), str) else []
        needed += [p for key in _ALL_OF for p in _list(part.get(key))]
        choices = [found for key in _ANY_OF if (found := _list(part.get(key)))]
        ends = all(self._ends(p, inner) for p in needed) and all(
            any(self._ends(p, inner) for p in choice) for choice in choices
        )
        if ends:
            self._good.add(id(part))
        return ends

    def _named(self, reference: str) -> object:
        """What a reference inside this schema names; None for all others."""
        at: object = self._root
        path = reference.removeprefix("#").strip("/")
        if not reference.startswith("#"):
            return None
        for key in map(unquote, path.split("/") if path else ()):
            name = key.replace("~1", "/").replace("~0", "~")
            if isinstance(at, Mapping):
                at = at.get(name)
            elif isinstance(at, list) and name.isdecimal() and int(name[:9]) < len(at):
                at = at[int(name[:9])]
            else:
                return None
        return at


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
