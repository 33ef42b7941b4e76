"""What this server takes, as an OpenAPI description made of the models that read the bodies.

It describes requests whole. Of answers it says what kind they are, and the shape of errors.
`benchmarks/openapi.py` holds a running server to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from everwarm.wire import (
    anthropic,
    board,
    openai_chat,
    openai_completions,
    openai_responses,
    session_files,
    sessions,
    stored_items,
)

_EMPTY = ("stop", "undo", "prepare", "compact", "uncompact")
BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": openai_chat._Body,
    "/v1/completions": openai_completions._Body,
    "/v1/responses": openai_responses._Body,
    "/v1/responses/{id}/cancel": sessions.EmptyBody,
    "/v1/messages": anthropic._Body,
    "/v1/messages/count_tokens": anthropic._Counted,
    "/api/sessions": sessions.CreateBody,
    "/api/sessions/import": session_files.ImportBody,
    "/api/sessions/{id}": sessions.ChangeBody,
    "/api/sessions/{id}/send": sessions.SendBody,
    "/api/sessions/{id}/regenerate": sessions.RegenerateBody,
    "/api/sessions/{id}/edit": sessions.EditBody,
    "/api/sessions/{id}/branches": sessions.BranchBody,
    "/api/sessions/{id}/select": sessions.SelectBody,
    "/api/cache/pin": board.PinBody,
    "/api/cache/drop": board.DropBody,
    **{
        f"/api/{path}": sessions.EmptyBody
        for path in ("turns/{id}/cancel", *(f"sessions/{{id}}/{verb}" for verb in _EMPTY))
    },
}
_EVENTS = "text/event-stream"
_TURNS = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
_FOLLOWED = {f"/api/sessions/{{id}}/{verb}" for verb in ("send", "edit", "regenerate", "compact")}
_KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_TURNS, ("application/json", _EVENTS)),
    **dict.fromkeys((*_FOLLOWED, "/api/sessions/{id}/stream"), (_EVENTS,)),
    "/api/sessions/{id}/export": ("application/json", "text/markdown"),
    "/metrics": ("text/plain",),
    "/": ("application/json", "text/html"),
    "/dashboard": ("text/html",),
    "/web/{path:path}": ("*/*",),
}
"""What kind an answer may be, where it is not always JSON."""
_TEXTS = {"type": "array", "items": {"type": "string"}}
_QUERIES: dict[str, dict[str, Any]] = {
    "/api/sessions": sessions.PageQuery.model_json_schema()["properties"],
    "/api/sessions/{id}": {"branch": {"type": "string"}},
    "/api/sessions/{id}/export": {"format": {"enum": ["json", "markdown"]}},
    "/v1/responses/{id}": {"include": _TEXTS, "stream": {"const": False}},
    "/v1/responses/{id}/input_items": {
        **stored_items.ItemsQuery.model_json_schema()["properties"],
        "include": _TEXTS,
    },
    "/api/turns": {"limit": {"type": "integer", "minimum": 1, "maximum": 1000}},
}
"""What a GET takes behind its question mark."""
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
"""The fields of an error, all of them required, by the shape that a path's errors have."""
_MODULE = re.compile(r"everwarm__wire__(\w+?)___(\w+)")
_VARIABLE = re.compile(r"\{(\w+)")
_JSON = "application/json"
Route = tuple[str, Iterable[str], bool, str]
"""Path, methods, whether it needs the key if there is one, and the shape of its errors."""


def description(version: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The document."""
    refs, made = models_json_schema(
        [(model, "validation") for model in BODIES.values()],
        ref_template="#/components/schemas/{model}",
    )
    bodies = {path: refs[model, "validation"] for path, model in BODIES.items()}
    schemas = made["$defs"]
    for schema in schemas.values():
        _let_nulls_pass(schema)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "everwarm", "version": version},
        "paths": {
            route[0].replace(":path}", "}"): {
                m.lower(): _operation(
                    route, m, bodies.get(route[0]) if m in ("POST", "PATCH") else None
                )
                for m in route[1]
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


def _operation(route: Route, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
    path, _, needs_key, shape = route
    kinds = _KINDS.get(path, (_JSON,))
    refused = {_JSON: {"schema": {"$ref": f"#/components/schemas/{shape}_error"}}}
    operation: dict[str, Any] = {
        "responses": {
            "200": {"description": "The answer.", "content": {k: {} for k in kinds}},
            "default": {"description": "An error.", "content": refused},
        }
    }
    if body is not None:
        content = {_JSON: {"schema": body}}
        operation["requestBody"] = {"required": _has_required_fields(path), "content": content}
    names = [("path", n, {"type": "string"}) for n in _VARIABLE.findall(path)]
    names += [("query", n, s) for n, s in _QUERIES.get(path, {}).items() if method == "GET"]
    if names:
        operation["parameters"] = [
            {"name": n, "in": where, "required": where == "path", "schema": schema}
            for where, n, schema in names
        ]
    if needs_key:
        operation["security"] = [{"bearer": []}, {"header": []}, {}]
    return operation


def _let_nulls_pass(schema: dict[str, Any]) -> None:
    """Null is the same as absent, for every field (`strict.py`, `fields.py`)."""
    if schema.get("additionalProperties") is False:
        schema["additionalProperties"] = {"type": "null"}
    for name, field in schema.get("properties", {}).items():
        if name not in schema.get("required", ()):
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}


def _has_required_fields(path: str) -> bool:
    return any(field.is_required() for field in BODIES[path].model_fields.values())


def _error(shape: str) -> dict[str, Any]:
    fields = _ERRORS[shape]
    return {"type": "object", "required": [*fields], "properties": fields}
