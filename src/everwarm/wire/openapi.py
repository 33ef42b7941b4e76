"""An OpenAPI description of this server, made from the models that read the bodies.

It describes requests completely; of answers only their media types and the shape of errors.
`benchmarks/openapi.py` checks a running server against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from everwarm.wire import stored_items
from everwarm.wire.formats import BODIES
from everwarm.wire.strict import EmptyBody

JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes in and out of some paths: bodies, the query of a GET, and the media types of
    answers, where these are not always JSON."""

    bodies: Mapping[str, type[BaseModel]]
    queries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __or__(self, other: Contents) -> Contents:
        """Both together."""
        return Contents(
            {**self.bodies, **other.bodies},
            {**self.queries, **other.queries},
            {**self.kinds, **other.kinds},
        )


_TURNS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
_TEXTS = {"type": "array", "items": {"type": "string"}}
CONTENTS = Contents(
    bodies={**BODIES, "/v1/responses/{id}/cancel": EmptyBody},
    queries={
        "/v1/responses/{id}": {"include": _TEXTS, "stream": {"const": False}},
        "/v1/responses/{id}/input_items": {
            **stored_items.ItemsQuery.model_json_schema()["properties"],
            "include": _TEXTS,
        },
        "/api/turns": {"limit": {"type": "integer", "minimum": 1, "maximum": 1000}},
    },
    kinds={**dict.fromkeys(_TURNS, (JSON, EVENTS)), "/metrics": ("text/plain",)},
)
"""What goes in and out of the client APIs."""
_MAYBE_TEXT = {"type": ["string", "null"]}
_ERRORS: dict[str, Any] = {
    "openai": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _MAYBE_TEXT,
                "code": _MAYBE_TEXT,
            },
        }
    },
    "anthropic": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
"""The fields of an error, all of them required, by the shape of a path's errors."""
_MODULE = re.compile(r"everwarm__(?:wire|chat)__(\w+?)__+(\w+)")
_VARIABLE = re.compile(r"\{(\w+)")
Route = tuple[str, Iterable[str], bool, str]
"""Path, methods, whether it needs the API key (if there is one), and the shape of its errors."""


def description(version: str, routes: Iterable[Route], contents: Contents) -> dict[str, Any]:
    """The document."""
    refs, made = models_json_schema(
        [(model, "validation") for model in contents.bodies.values()],
        ref_template="#/components/schemas/{model}",
    )
    bodies = {path: refs[model, "validation"] for path, model in contents.bodies.items()}
    schemas = made["$defs"]
    for schema in schemas.values():
        _allow_nulls(schema)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "everwarm", "version": version},
        "paths": {
            route[0].replace(":path}", "}"): {
                m.lower(): _operation(route, m, contents, bodies.get(route[0])) for m in route[1]
            }
            for route in routes
        },
        "components": {
            "schemas": schemas | {f"{shape}_error": _error(shape) for shape in _ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }
    named: dict[str, Any] = json.loads(_MODULE.sub(r"\1_\2", json.dumps(document)))
    return named


def _operation(
    route: Route, method: str, contents: Contents, body: dict[str, Any] | None
) -> dict[str, Any]:
    path, _, needs_key, shape = route
    kinds = contents.kinds.get(path, (JSON,))
    refused = {JSON: {"schema": {"$ref": f"#/components/schemas/{shape}_error"}}}
    operation: dict[str, Any] = {
        "responses": {
            "200": {"description": "The answer.", "content": {k: {} for k in kinds}},
            "default": {"description": "An error.", "content": refused},
        }
    }
    if body is not None and method in ("POST", "PATCH"):
        is_required = any(f.is_required() for f in contents.bodies[path].model_fields.values())
        content = {JSON: {"schema": body}}
        operation["requestBody"] = {"required": is_required, "content": content}
    names = [("path", n, {"type": "string"}) for n in _VARIABLE.findall(path)]
    names += [("query", n, s) for n, s in contents.queries.get(path, {}).items() if method == "GET"]
    if names:
        operation["parameters"] = [
            {"name": n, "in": where, "required": where == "path", "schema": schema}
            for where, n, schema in names
        ]
    if needs_key:
        operation["security"] = [{"bearer": []}, {"header": []}, {}]
    return operation


def _allow_nulls(schema: dict[str, Any]) -> None:
    """Allow null for every optional field: it is the same as absent."""
    if schema.get("additionalProperties") is False:
        schema["additionalProperties"] = {"type": "null"}
    for name, own in schema.get("properties", {}).items():
        if name not in schema.get("required", ()):
            schema["properties"][name] = {"anyOf": [own, {"type": "null"}]}


def _error(shape: str) -> dict[str, Any]:
    fields = _ERRORS[shape]
    return {"type": "object", "required": [*fields], "properties": fields}
