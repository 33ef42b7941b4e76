"""A session as a file: exported as JSON or Markdown, imported from JSON.

An imported file is not trusted: its shape is checked, its ids are computed anew, and its records of
turns are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from everwarm.chat import session_json as wire
from everwarm.chat.session import Entry, Session, Tree
from everwarm.errors import RequestError
from everwarm.events import Finish
from everwarm.messages import Message, MessageId, Part, Reasoning, Role, Text, ToolCall
from everwarm.wire import body as wb
from everwarm.wire.strict import StrictObject

MAX_MESSAGES = 100_000
MAX_BRANCHES = 1000
_Words = Annotated[str, Field(max_length=wire.MAX_TEXT), BeforeValidator(wire.no_surrogates)]
_Time = Annotated[float, Field(ge=0, lt=2**40)]
_NAMES = {"user": "User", "assistant": "Assistant", "tool": "Tool", "system": "System"}


class ImportedPart(StrictObject):
    """Text, reasoning, or a tool call."""

    type: Literal["text", "reasoning", "tool_call"]
    text: _Words = ""
    id: Annotated[str, Field(max_length=256)] = ""
    name: Annotated[str, Field(max_length=256)] = ""
    arguments: _Words = ""


class ImportedMessage(StrictObject):
    """One message; its parent stands before it in the file."""

    id: wire.Id
    parent: wire.Id | None = None
    role: Role
    parts: Annotated[wb.Many[ImportedPart], Field(max_length=10_000)]
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    created: _Time = 0.0
    finish: Finish | None = None
    covers: wire.Id | None = None
    turn: Any = None  # an old record: dropped


class ImportedBranch(StrictObject):
    name: wire.BranchName
    head: wire.Id | None = None


class ImportBody(StrictObject):
    """POST /api/sessions/import: what an export as JSON gave."""

    everwarm: Literal[1]
    title: Annotated[str, Field(max_length=200), BeforeValidator(wire.no_surrogates)] = ""
    created: _Time = 0.0
    updated: _Time = 0.0
    pinned: bool = False
    origin: Literal["web", "api"] = "web"
    client: Annotated[str, Field(max_length=256)] | None = None
    settings: wire.SettingsBody = wire.SettingsBody()
    branch: wire.BranchName = "main"
    branches: Annotated[wb.Many[ImportedBranch], Field(min_length=1, max_length=MAX_BRANCHES)]
    messages: Annotated[wb.Many[ImportedMessage], Field(max_length=MAX_MESSAGES)] = []


def imported(body: ImportBody, session_id: str, now: float) -> tuple[Session, list[Entry]]:
    """The session and its messages under new ids. Raises RequestError where ids do not match."""
    tree = Tree(session_id, ())
    ids: dict[str | None, MessageId | None] = {None: None}
    entries: dict[MessageId, Entry] = {}
    for i, m in enumerate(body.messages):
        for name, other in (("parent", m.parent), ("covers", m.covers)):
            if other not in ids:
                where = f"messages.{i}.{name}"
                raise RequestError(f"{where}: no message before it has this id.", param=where)
        message = Message(m.role, tuple(_part(p) for p in m.parts), m.tool_call_id)
        ids[m.id] = own = tree.id_of(ids[m.parent], message)
        entry = Entry(own, ids[m.parent], message, m.created, None, m.finish, ids[m.covers], i)
        entries.setdefault(own, entry)
    branches = {b.name: b.head for b in body.branches}
    if body.branch not in branches:
        raise RequestError("branch: it is not among the branches.", param="branch")
    if any(head not in ids for head in branches.values()):
        raise RequestError("branches: a head is no message's id.", param="branches")
    session = Session(
        id=session_id, title=body.title, created=body.created or now, updated=now,
        pinned=body.pinned, choices=wire.choices_of(body.settings), branch=body.branch,
        branches={name: ids[head] for name, head in branches.items()},
    )  # fmt: skip
    return session, list(entries.values())


def exported(session: Session, tree: Tree) -> dict[str, Any]:
    """A whole session, as `imported` reads it."""
    return {
        "everwarm": 1,
        **wire.session_fields(session),
        "messages": [_exported(e) for e in tree],
    }


def markdown(session: Session, path: Sequence[Entry]) -> str:
    """The present branch for people to read."""
    out = [f"# {session.title or 'Conversation'}"]
    if session.choices.system:
        out += ["## System", session.choices.system]
    for e in path:
        out.append("## Summary" if e.covers else f"## {_NAMES[e.message.role]}")
        if e.message.reasoning:
            out.append("\n".join(f"> {line}" for line in e.message.reasoning.splitlines()))
        if e.message.text:
            out.append(e.message.text)
        out += [f"Calls `{c.name}`:\n\n    {c.arguments}" for c in e.message.tool_calls]
    return "\n\n".join(out) + "\n"


def _exported(e: Entry) -> dict[str, Any]:
    return {
        "id": e.id,
        "parent": e.parent,
        "role": e.message.role,
        "parts": [_part_json(p) for p in e.message.parts],
        "tool_call_id": e.message.tool_call_id,
        "created": e.created,
        "finish": e.finish,
        "covers": e.covers,
        "turn": e.turn,
    }


def _part_json(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Reasoning(text):
            return {"type": "reasoning", "text": text}
        case ToolCall():
            return {"type": "tool_call", **asdict(part)}


def _part(p: ImportedPart) -> Part:
    match p.type:
        case "text":
            return Text(p.text)
        case "reasoning":
            return Reasoning(p.text)
        case "tool_call":
            return ToolCall(p.id, p.name, p.arguments)
