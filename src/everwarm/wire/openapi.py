"""What this server takes, as an OpenAPI description made of the models that read the bodies.

It describes requests; an answer is said to be JSON or events, and errors have their format's shape.
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
)

_EMPTY = ("stop", "undo", "prepare", "compact", "uncompact")
_BODIES: dict[str, tuple[type[BaseModel], Iterable[str]]] = {
    "/v1/chat/completions": (openai_chat._Body, openai_chat.NO_EFFECT),
    "/v1/completions": (openai_completions._Body, openai_completions.NO_EFFECT),
    "/v1/responses": (openai_responses._Body, openai_responses.NO_EFFECT),
    "/v1/messages": (anthropic._Body, anthropic.NO_EFFECT),
    "/v1/messages/count_tokens": (anthropic._Counted, anthropic.NO_EFFECT),
    "/api/sessions": (sessions.CreateBody, ()),
    "/api/sessions/import": (session_files.ImportBody, ()),
    "/api/sessions/{id}": (sessions.ChangeBody, ()),
    "/api/sessions/{id}/send": (sessions.SendBody, ()),
    "/api/sessions/{id}/regenerate": (sessions.RegenerateBody, ()),
    "/api/sessions/{id}/edit": (sessions.EditBody, ()),
    "/api/sessions/{id}/branches": (sessions.BranchBody, ()),
    "/api/sessions/{id}/select": (sessions.SelectBody, ()),
    "/api/cache/pin": (board.PinBody, ()),
    "/api/cache/drop": (board.DropBody, ()),
    **{
        f"/api/{path}": (sessions.EmptyBody, ())
        for path in ("turns/{id}/cancel", *(f"sessions/{{id}}/{verb}" for verb in _EMPTY))
    },
}
_MODULE = re.compile(r"everwarm__wire__(\w+?)___(\w+)")
_JSON = "application/json"


def description(version: str, routes: Iterable[tuple[str, Iterable[str], bool]]) -> dict[str, Any]:
    """The document. `routes`: path, methods, and whether it needs the key, if there is one."""
    refs, made = models_json_schema(
        [(model, "validation") for model, _ in _BODIES.values()],
        ref_template="#/components/schemas/{model}",
    )
    bodies = {path: refs[model, "validation"] for path, (model, _) in _BODIES.items()}
    schemas = made["$defs"]
    for path, (_, no_effect) in _BODIES.items():
        fields = schemas[bodies[path]["$ref"].rpartition("/")[2]]["properties"]
        fields |= {name: {"description": "Changes nothing."} for name in sorted(no_effect)}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "everwarm", "version": version},
        "paths": {
            path.replace(":path}", "}"): {
                m.lower(): _operation(
                    path, bodies.get(path) if m in ("POST", "PATCH") else None, needs_key
                )
                for m in methods
            }
            for path, methods, needs_key in routes
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }
    named: dict[str, Any] = json.loads(_MODULE.sub(r"\1_\2", json.dumps(document)))
    return named


def _operation(path: str, body: dict[str, Any] | None, needs_key: bool) -> dict[str, Any]:
    answers: dict[str, Any] = {_JSON: {}} | (
        {"text/event-stream": {}} if body and "count" not in path else {}
    )
    operation: dict[str, Any] = {
        "responses": {
            "200": {"description": "The answer.", "content": answers},
            "default": {"description": "An error.", "content": {_JSON: {}}},
        }
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    if "{" in path:
        variable = path.partition("{")[2].partition("}")[0].partition(":")[0]
        name = {"name": variable, "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [name]
    if needs_key:
        operation["security"] = [{"bearer": []}, {"header": []}, {}]
    return operation
