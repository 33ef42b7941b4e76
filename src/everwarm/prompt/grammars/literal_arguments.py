"""Arguments that are an object in a model's own spelling: a grammar of a tool's parameters.

Parameters that are required stand in the schema's order, the others may be left out. Numbers are
JSON of their schemas; what has no type is any value that the notation can write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everwarm.prompt.dialects.dialect import Literals
from everwarm.prompt.grammars.rules import GrammarRules, schemas_of, words

_DEEPEST = 8
_DEEPEST_ANY = 3
"""How deep lists and objects may stand in each other, by schemas and beyond what these say."""
_ANY: tuple[Mapping[str, Any], ...] = tuple(
    {"type": t} for t in ("string", "number", "boolean", "null", "array", "object")
)
_WORD = r"/[A-Za-z_][A-Za-z0-9_]{0,63}/"


@dataclass(frozen=True, slots=True)
class LiteralArguments:
    """Writes the arguments of calls into a grammar.

    `is_python`: objects and lists inside are JSON, `True` and `None` are words.
    """

    literals: Literals
    rules: GrammarRules

    @property
    def is_python(self) -> bool:
        return self.literals.equals == "="

    def all(self, schema: Mapping[str, Any]) -> str:
        """All arguments of a call. `schema`: the tool's parameters."""
        return self._object(schema, self.literals.open, self.literals.close, 0)

    def _object(self, schema: Mapping[str, Any], opens: str, closes: str, depth: int) -> str:
        known = schemas_of(schema)
        if not known:
            pair = f"{self.rules.rule('key', _WORD)} {self._equals(depth)} {self._any(depth)}"
            inner = self._some(pair) if depth else ""
            return f"{self.rules.literal(opens)} {inner} {self.rules.literal(closes)}"
        needed = set(schema.get("required") or ())
        rest, starts, is_over = "", list[str](), False
        pairs = [
            (key in needed, self.rules.rule("pair", self._pair(key, own, depth)))
            for key, own in known.items()
        ]
        for is_needed, pair in reversed(pairs):
            starts = [f"{pair} {rest}"] + ([] if is_needed else starts)
            is_over |= is_needed
            more = f'"{self._comma}" {pair}'
            rest = self.rules.rule("rest", f"{more if is_needed else f'({more})?'} {rest}")
        inner = f"({' | '.join(starts)})" + ("" if is_over else "?")
        return f"{self.rules.literal(opens)} {inner} {self.rules.literal(closes)}"

    def _pair(self, key: str, schema: Mapping[str, Any], depth: int) -> str:
        return f"{words(key)} {self._equals(depth)} {self._value(schema, depth + 1)}"

    def _equals(self, depth: int) -> str:
        return self.rules.literal(":" if depth else self.literals.equals)

    @property
    def _comma(self) -> str:
        return ", " if self.is_python else ","

    def _some(self, item: str) -> str:
        return f'({item} ("{self._comma}" {item})*)?'

    def _value(self, schema: Mapping[str, Any], depth: int) -> str:
        values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
        if values:
            return f"({' | '.join(self._constant(v) for v in values)})"
        given = schema.get("type")
        types = [given] if isinstance(given, str) else list(given or ())
        options: list[Mapping[str, Any]] = [{**schema, "type": t} for t in types]
        for key in ("anyOf", "oneOf"):
            options += [o for o in schema.get(key) or () if isinstance(o, Mapping)] * (not types)
        if len(options) == 1 and types:
            return self._typed(options[0], depth)
        if not options or depth > _DEEPEST:
            return self._any(depth)
        return f"({' | '.join(self._value(o, depth + 1) for o in options)})"

    def _any(self, depth: int) -> str:
        kinds = _ANY if depth <= _DEEPEST_ANY else _ANY[:4]
        return self.rules.rule("any", " | ".join(self._typed(k, depth + 1) for k in kinds))

    def _typed(self, schema: Mapping[str, Any], depth: int) -> str:
        match schema["type"]:
            case "string":
                return self._string()
            case "boolean":
                return f"({self._constant(True)} | {self._constant(False)})"
            case "null":
                return self._constant(None)
            case "array" | "object" if self.is_python:
                return self.rules.json(schema)
            case "array":
                items = schema.get("items")
                own = items if isinstance(items, Mapping) else {}
                item = self._value(own, depth + 1) if own else self._any(depth + 1)
                return f'"[" {self._some(self.rules.rule("item", item))} "]"'
            case "object":
                return self._object(schema, "{", "}", depth)
            case _:
                return self.rules.json(schema)

    def _constant(self, value: object) -> str:
        if isinstance(value, str):
            quote = self.literals.quotes[0]
            said = json.dumps(value, ensure_ascii=False)[1:-1] if quote == '"' else value
            return f"{self.rules.literal(quote)} {words(said)} {self.rules.literal(quote)}"
        spelled = str(value) if self.is_python else json.dumps(value)
        return self.rules.literal(spelled)

    def _string(self) -> str:
        quote = self.literals.quotes[0]
        if quote == '"':
            texts = (rf"/{q}([^{q}\\\n]|\\[\\{q}nt])*{q}/" for q in self.literals.quotes[:2])
            return self.rules.rule("text", " | ".join(texts))
        return f"{self.rules.literal(quote)} {self.rules.text_until(quote)}"
