"""Arguments that are written one by one, as tags: a grammar of a tool's parameters.

Those that are required stand in the schema's order, the others may be left out. A parameter that
may be text is any text up to its closing tag; all others are JSON of their schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everwarm.prompt.dialects.dialect import Tags
from everwarm.prompt.grammars.rules import GrammarRules, schemas_of, words

_DEEPEST = 8
"""How deep tags may stand in each other; behind that, anything may."""


@dataclass(frozen=True, slots=True)
class TagArguments:
    """Writes the arguments of one tool's calls into a grammar. `schema`: the tool's parameters."""

    tags: Tags
    rules: GrammarRules
    schema: Mapping[str, Any]

    def all(self) -> str:
        """All arguments of a call."""
        return self._members(self.schema, 0)

    def _members(self, schema: Mapping[str, Any], depth: int) -> str:
        needed = schema.get("required") or ()
        made = []
        for key, own in schemas_of(schema).items():
            body = self.rules.rule("param", self._argument(key, own, depth))
            made.append(body if key in needed else f"{body}?")
        return " ".join(made)

    def _argument(self, key: str, schema: Mapping[str, Any], depth: int) -> str:
        """A key with its value and the tags around them."""
        tags, literal = self.tags, self.rules.literal
        is_text = _may_be_text(schema)
        middle = tags.middle if is_text else _middle(tags, schema)
        close = tags.close.replace("«key»", key)
        head = f"{literal(tags.open)} {words(key)} {literal(middle)}"
        if is_text and isinstance(schema.get("enum"), list):
            values = " | ".join(words(str(v)) for v in schema["enum"])
            return f"{head} ({values}) {literal(close)}"
        if is_text or (tags.nests and depth > _DEEPEST):
            return f"{head} {self.rules.text_until(close)}"
        inner = self._nested(schema, depth) if tags.nests else None
        if inner is None:
            shared = {k: self.schema[k] for k in ("$defs", "definitions") if k in self.schema}
            inner = self.rules.json({**shared, **schema})
        return f"{head} {inner} {literal(close)}"

    def _nested(self, schema: Mapping[str, Any], depth: int) -> str | None:
        """A list or an object as tags in tags; None: it is neither."""
        if schema.get("type") == "array":
            items = schema.get("items")
            own = items if isinstance(items, Mapping) and items else {"type": "string"}
            return f"({self.rules.rule('item', self._argument(self.tags.item, own, depth + 1))})*"
        if schema.get("type") != "object":
            return None
        return self._members(schema, depth + 1) or '""'


def _middle(tags: Tags, schema: Mapping[str, Any]) -> str:
    """What stands between a key and a value of this schema, which is no text."""
    given = schema.get("type")
    kind = "number" if given == "integer" else given
    own = dict(tags.others)
    return own.get(str(kind), next(iter(own.values()), tags.middle))


def _may_be_text(schema: Mapping[str, Any]) -> bool:
    """As the reader of tags takes it: what is not declared is text."""
    given = schema.get("type")
    types = {given} if isinstance(given, str) else set(given or ())
    options = [o for k in ("anyOf", "oneOf") for o in schema.get(k) or ()]
    if not types and not options:
        values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
        return not values or any(isinstance(v, str) for v in values)
    return "string" in types or any(_may_be_text(o) for o in options if isinstance(o, Mapping))
