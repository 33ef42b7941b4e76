"""Arguments that are written one by one, as tags: a grammar of a tool's parameters.

Those that are required stand in the schema's order, the others may be left out. A parameter that
may be text is any text up to its closing tag; all others are JSON of their schemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from everwarm.prompt.dialects.dialect import Tags

_TEXT = r"/(.|\n)*/"
_DEEPEST = 8
"""How deep tags may stand in each other; behind that, anything may."""


def tagged(
    tags: Tags,
    schema: Mapping[str, Any],
    *,
    rule: Callable[..., str],
    json_of: Callable[..., str],
    literal: Callable[[str], str],
) -> str:
    """The arguments of a call. `rule` names a rule, `json_of` makes one of a schema."""
    properties = schema.get("properties")
    needed = schema.get("required") or ()
    shared = {k: schema[k] for k in ("$defs", "definitions") if k in schema}
    made = _Tagged(tags, rule, json_of, literal, shared)
    out = []
    for key, own in (properties if isinstance(properties, Mapping) else {}).items():
        body = rule("param", made.argument(key, own if isinstance(own, Mapping) else {}, 0))
        out.append(body if key in needed else f"{body}?")
    return " ".join(out)


@dataclass(frozen=True, slots=True)
class _Tagged:
    """Writes one argument after another. `shared`: definitions that schemas refer to."""

    tags: Tags
    rule: Callable[..., str]
    json_of: Callable[..., str]
    literal: Callable[[str], str]
    shared: Mapping[str, Any]

    def argument(self, key: str, schema: Mapping[str, Any], depth: int) -> str:
        """A key with its value and the tags around them."""
        tags, literal = self.tags, self.literal
        is_text = _may_be_text(schema)
        middle = tags.middle if is_text else _middle(tags, schema)
        close = tags.close.replace("«key»", key)
        head = f"{literal(tags.open)} {words(key)} {literal(middle)}"
        if is_text and isinstance(schema.get("enum"), list):
            values = " | ".join(words(str(v)) for v in schema["enum"])
            return f"{head} ({values}) {literal(close)}"
        if is_text or (tags.nests and depth > _DEEPEST):
            return f"{head} {text_until(close, self.rule, literal)}"
        inner = self._nested(schema, depth) if tags.nests else None
        if inner is None:
            inner = self.json_of({**self.shared, **schema}, lenient=True)
        return f"{head} {inner} {literal(close)}"

    def _nested(self, schema: Mapping[str, Any], depth: int) -> str | None:
        """A list or an object as tags in tags; None: it is neither."""
        if schema.get("type") == "array":
            items = schema.get("items")
            own = items if isinstance(items, Mapping) and items else {"type": "string"}
            return f"({self.rule('item', self.argument(self.tags.item, own, depth + 1))})*"
        if schema.get("type") != "object":
            return None
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        needed = schema.get("required") or ()
        made = []
        for key, value in known.items():
            own = value if isinstance(value, Mapping) else {}
            made.append((key, self.rule("param", self.argument(key, own, depth + 1))))
        return " ".join(m if k in needed else f"{m}?" for k, m in made) or '""'


def _middle(tags: Tags, schema: Mapping[str, Any]) -> str:
    """What stands between a key and a value of this schema, which is no text."""
    given = schema.get("type")
    kind = "number" if given == "integer" else given
    own = dict(tags.others)
    return own.get(str(kind), next(iter(own.values()), tags.middle))


def words(text: str) -> str:
    """What a client wrote, such as a name: it is text, also where it is a control token's."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def text_until(close: str, rule: Callable[..., str], literal: Callable[[str], str]) -> str:
    """Any text, and the tag that ends it: the first one, for the reader does not look further.

    Blanks in front of the tag are not asked for: they are the text's. A control token in the tag
    ends the text by itself, and what stands before it in the tag is the text's last part: the lexer
    takes the longest match, and would not give it back.
    """
    core = close.strip()
    rest = close[close.index(core) + len(core) :]
    spelled = literal(core)
    if spelled == json.dumps(core, ensure_ascii=False):
        return f"{rule('value', _TEXT, suffix=spelled)} {literal(rest)}"
    lead = spelled[: spelled.index("<[")].strip()
    before = json.loads(lead) if lead else ""
    text = rule("value", rf"/(.|\n)*{re.escape(before).replace('/', chr(92) + '/')}/")
    return f"{text} {spelled[spelled.index('<[') :]} {literal(rest)}"


def _may_be_text(schema: Mapping[str, Any]) -> bool:
    """As the reader of tags takes it: what is not declared is text."""
    given = schema.get("type")
    types = {given} if isinstance(given, str) else set(given or ())
    options = [o for k in ("anyOf", "oneOf") for o in schema.get(k) or ()]
    if not types and not options:
        values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
        return not values or any(isinstance(v, str) for v in values)
    return "string" in types or any(_may_be_text(o) for o in options if isinstance(o, Mapping))
