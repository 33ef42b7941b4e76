"""Which schemas are tried as a grammar at all."""

from __future__ import annotations

from typing import Any

import pytest

from everwarm.prompt.grammars.schemas import MAX_PARTS, MAX_PROPERTIES, MAX_TEXT, why_not

LOOP = {"$ref": "#/$defs/a"}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "of": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "all": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "other": {"$ref": "#/$defs/a~1b%20c"},
            },
        },
        "a/b c": {"type": "string"},
    },
}


def nested_references(depth: int) -> dict[str, Any]:
    """Each names the next one twice: followed one by one they are 2**depth."""
    defs: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, depth):
        before = {"$ref": f"#/$defs/d{n - 1}"}
        defs[f"d{n}"] = {"allOf": [before, dict(before)], "anyOf": [dict(before), dict(before)]}
    return {"$ref": f"#/$defs/d{depth - 1}", "$defs": defs}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        TREE,
        {"enum": ["x" * MAX_TEXT, 1, None]},
        {"enum": [str(n) for n in range(10_000)]},
        {"description": "x" * 100_000, "properties": {"description": {"type": "string"}}},
        {"$ref": "elsewhere.json"},
        {"$ref": "#/nowhere"},
        {"$ref": 5, "allOf": 5},
        {"$defs": {"a": {"anyOf": [LOOP, {"type": "null"}]}}, **LOOP},
        nested_references(60),
    ],
)
def test_what_may_be_a_grammar_is_tried(schema: dict[str, Any]) -> None:
    assert why_not([schema]) is None


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"enum": ["x" * 5_000_000]}, "characters"),
        ({"pattern": "x" * 1_000_000}, "characters"),
        ({"properties": {"k" * (MAX_TEXT + 1): {}}}, "characters"),
        ({"properties": {"description": {"const": "x" * (MAX_TEXT + 1)}}}, "characters"),
        ({"properties": {str(n): {} for n in range(MAX_PROPERTIES + 1)}}, "properties"),
        ({"enum": list(range(MAX_PARTS))}, "values"),
        ({"$ref": "#"}, "itself"),
        ({"$defs": {"a": LOOP}, **LOOP}, "itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": LOOP}, "items": LOOP}, "itself"),
        ({"$defs": {"a": {"allOf": [{}, LOOP]}}, "properties": {"x": LOOP}}, "itself"),
        ({"$defs": {"a": {"oneOf": [LOOP, LOOP]}}, **LOOP}, "itself"),
    ],
)
def test_what_would_take_too_much_is_not(schema: dict[str, Any], why: str) -> None:
    assert why in (why_not([schema]) or "")


def test_the_schemas_of_all_tools_count_together() -> None:
    schema = {"enum": list(range(MAX_PARTS // 2))}
    assert why_not([schema]) is None
    assert why_not([schema, schema]) is not None
