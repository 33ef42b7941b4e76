"""How a template writes arguments: JSON, tags around each, or an object of its own spelling."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from everwarm.prompt.dialects.derive_markers import TemplateMarkers
from everwarm.prompt.dialects.dialect import Literals, Tags
from everwarm.prompt.dialects.renderings import KEYS, NAMES, TYPED, VALUES

_JSON = json.JSONDecoder(strict=False)
_EQUALS = re.compile(r"\s*([:=])\s*(\S+)")
_PYTHON = ('"', "'", '"""', "'''")


@dataclass(frozen=True, slots=True)
class Spelling:
    """How arguments are written; with neither, as a JSON object."""

    tags: Tags | None = None
    literals: Literals | None = None

    @property
    def is_json(self) -> bool:
        return self.tags is None and self.literals is None


def _parts(text: str) -> tuple[str, str, str, str] | None:
    """What stands before and behind two keys and values: before, middle, between, behind."""
    at = text.find(NAMES[0])
    places = []
    for word in (KEYS[0], VALUES[0], KEYS[1], VALUES[1]):
        at = text.find(word, at) if at >= 0 else -1
        places.append((at, at + len(word)))
        at = places[-1][1] if at >= 0 else -1
    if at < 0:
        return None
    (k1, k1_end), (v1, v1_end), (k2, _), (_, v2_end) = places
    name_end = text.find(NAMES[0]) + len(NAMES[0])
    return text[name_end:k1], text[k1_end:v1], text[v1_end:k2], text[v2_end:]


def literals_of(text: str) -> Literals | None:
    """The spelling of an object such as `{key:<|"|>text<|"|>,n:1}` or `(key="text", n=1)`."""
    parts = _parts(text)
    if parts is None:
        return None
    before, middle, between, behind = parts
    found = _EQUALS.fullmatch(middle)
    opens = before.strip()[-1:]
    if found is None or opens not in ("{", "("):
        return None
    equals, quote = found[1], found[2]
    if between.strip() != f"{quote}," or not behind.startswith(quote):
        return None
    close = {"{": "}", "(": ")"}[opens]
    if not behind[len(quote) :].lstrip().startswith(close):
        return None
    quotes = _PYTHON if quote in "\"'" else (quote, '"')
    if quote == "'":
        quotes = ("'", '"', "'''", '"""')
    return Literals(opens, equals, close, quotes)


def tags_of(
    text: str, edges: TemplateMarkers, typed: Callable[[object], str | None], section: str
) -> Spelling | None:
    """The tags around each argument. `typed` renders a call with one value.

    `section`: how a section of calls begins.
    """
    parts = _parts(text)
    if parts is None:
        return None
    before, middle, between, behind = parts
    if KEYS[0] in between:  # the key closes its value
        end = between.index(KEYS[0]) + len(KEYS[0])
        rest = between[end:]
        stop = rest.index(">") + 1 if ">" in rest else 0
        close = between[:end].replace(KEYS[0], "«key»") + rest[:stop]
        opens = edges.shared_end(before, rest[stop:]).lstrip()
        item = _item(typed(list(TYPED["array"])), opens, middle)
        tags = Tags(opens, middle, close, item=item)
    else:
        trail, rest, lead = edges.parted(before, between, behind, section)
        opens, close = lead.lstrip(), trail + rest + lead[: len(lead) - len(lead.lstrip())]
        close = close if behind.startswith(close) else close.rstrip()
        tags = Tags(opens, middle, close)
    if not tags.open or not tags.middle.strip() or not tags.close.strip():
        return None
    others = {} if tags.nests else _others(tags, typed)
    return Spelling(tags=replace(tags, others=tuple(others.items())))


def _item(text: str | None, opens: str, middle: str) -> str:
    """What a list's values are called where lists are tags in tags."""
    found = re.search(
        re.escape(opens) + r"([^<>\s]+?)" + re.escape(middle) + re.escape(TYPED["array"][0]),
        text or "",
    )
    return found[1] if found else "item"


def _others(tags: Tags, typed: Callable[[object], str | None]) -> dict[str, str]:
    """What stands before values that are no text, by their types, where it is something else."""
    out: dict[str, str] = {}
    for kind, value in TYPED.items():
        text = typed(value) or ""
        at = text.find(tags.open + KEYS[0])
        at = at + len(tags.open + KEYS[0]) if at >= 0 else len(text)
        shown = text[at : text.find(tags.close.strip(), at)]
        spelled = [s for s in (json.dumps(value), str(value)) if shown.rstrip().endswith(s)]
        middle = shown.rstrip().removesuffix(spelled[0]) if spelled else tags.middle
        if middle != tags.middle:
            out[kind] = middle
    return out


def span_of(
    text: str, at: int, arguments: Mapping[str, Any], spelling: Spelling
) -> tuple[int, int] | None:
    """Where the arguments of a call whose name ends at `at` begin and end."""
    if spelling.is_json:
        return _json_span(text, at, arguments)
    (key, value), *_ = arguments.items()
    k = text.find(key, at)
    v = text.find(str(value), k) if k >= 0 else -1
    if v < 0:
        return None
    end = v + len(str(value))
    if spelling.literals:
        stop = text.find(spelling.literals.close, end)
        return (text.rfind(spelling.literals.open, at, k), stop + 1) if stop >= 0 else None
    assert spelling.tags is not None
    close = spelling.tags.close.replace("«key»", key)
    if not text.startswith(close, end):
        return None
    return k - len(spelling.tags.open), end + len(close)


def _json_span(text: str, at: int, arguments: Mapping[str, Any]) -> tuple[int, int] | None:
    start = at
    while (start := text.find("{", start)) >= 0:
        try:
            value, end = _JSON.raw_decode(text, start)
        except (ValueError, RecursionError):
            start += 1
            continue
        if value == dict(arguments):
            return start, end
        start += 1
    return None


def holds(value: object, wanted: object) -> bool:
    """Whether a JSON value has this one anywhere in it, be it as a key."""
    if value == wanted and type(value) is type(wanted):
        return True
    if isinstance(value, dict):
        return any(key == wanted or holds(inner, wanted) for key, inner in value.items())
    return isinstance(value, list) and any(holds(inner, wanted) for inner in value)
