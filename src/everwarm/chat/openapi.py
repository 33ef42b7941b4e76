"""What the paths of sessions and pages take and give, for the server's OpenAPI description."""

from __future__ import annotations

from everwarm.chat import dashboard, session_files, session_json
from everwarm.wire.openapi import EVENTS, JSON, Contents
from everwarm.wire.strict import EmptyBody

_ONE = "/api/sessions/{id}"
_EMPTY = ("stop", "undo", "prepare", "compact", "uncompact")
_FOLLOWED = ("send", "edit", "regenerate", "continue", "compact", "stream")
CONTENTS = Contents(
    bodies={
        "/api/sessions": session_json.CreateBody,
        "/api/sessions/import": session_files.ImportBody,
        _ONE: session_json.ChangeBody,
        f"{_ONE}/send": session_json.SendBody,
        f"{_ONE}/regenerate": session_json.RegenerateBody,
        f"{_ONE}/continue": session_json.ContinueBody,
        f"{_ONE}/edit": session_json.EditBody,
        f"{_ONE}/branches": session_json.BranchBody,
        f"{_ONE}/select": session_json.SelectBody,
        "/api/cache/pin": dashboard.PinBody,
        "/api/cache/drop": dashboard.DropBody,
        "/api/turns/{id}/cancel": EmptyBody,
        **{f"{_ONE}/{verb}": EmptyBody for verb in _EMPTY},
    },
    queries={
        "/api/sessions": session_json.PageQuery.model_json_schema()["properties"],
        _ONE: {"branch": {"type": "string"}},
        f"{_ONE}/export": {"format": {"enum": ["json", "markdown"]}},
    },
    kinds={
        **{f"{_ONE}/{verb}": (EVENTS,) for verb in _FOLLOWED},
        f"{_ONE}/export": (JSON, "text/markdown"),
        "/": (JSON, "text/html"),
        "/dashboard": ("text/html",),
        "/web/{path:path}": ("*/*",),
    },
)
