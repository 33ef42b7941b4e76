"""The session API as JSON: the bodies it takes, and how it spells sessions, messages and events.

It is the one format that keeps the conversation on the server: a client sends only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from everwarm import events as ev
from everwarm.chat.session import Choices, Entry, Session, Tree, context_used
from everwarm.events import Event
from everwarm.messages import Message
from everwarm.request import Request
from everwarm.wire import body as wb
from everwarm.wire import sse
from everwarm.wire.error_json import openai_error, refusal
from everwarm.wire.strict import StrictObject

B = TypeVar("B", bound=BaseModel)
MAX_TEXT = 8 * 2**20
DEFAULT_TEMPERATURE = 0.7
"""The default of sessions: not 0, so that regenerating a reply gives another one."""


def no_surrogates(value: object) -> object:
    """Refuse half surrogate pairs, which JSON can spell and UTF-8 cannot."""
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("must be text that UTF-8 can spell")
    return value


Title = Annotated[str, Field(min_length=1, max_length=200), BeforeValidator(no_surrogates)]
MessageText = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT), BeforeValidator(no_surrogates)
]
Id = Annotated[str, Field(min_length=1, max_length=64)]
BranchName = Annotated[str, Field(min_length=1, max_length=64)]


class SettingsBody(StrictObject):
    """How a session is answered; what is left out is as the server does it."""

    system: Annotated[str, Field(max_length=MAX_TEXT), BeforeValidator(no_surrogates)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: wb.Count | None = None
    thinking: bool | None = None
    thinking_budget: Annotated[int, Field(ge=0, le=2**24)] | None = None
    compact_at: Annotated[float, Field(ge=0.05, le=1)] | None = None


class CreateBody(StrictObject):
    """POST /api/sessions"""

    title: Title | None = None
    settings: SettingsBody = SettingsBody()


class ChangeBody(StrictObject):
    """PATCH /api/sessions/ID: only what is to be changed; `settings` as a whole."""

    title: Title | None = None
    pinned: bool | None = None
    settings: SettingsBody | None = None
    branch: BranchName | None = None


class SendBody(StrictObject):
    """POST /api/sessions/ID/send: behind `parent`, or at the end of the present branch."""

    text: MessageText
    parent: Id | None = None


class RegenerateBody(StrictObject):
    """POST /api/sessions/ID/regenerate: this reply anew, or the last one."""

    message: Id | None = None


class ContinueBody(StrictObject):
    """POST /api/sessions/ID/continue: this reply, which was cut, or the last one."""

    message: Id | None = None


class EditBody(StrictObject):
    """POST /api/sessions/ID/edit: a user's message in other words, on a branch of its own."""

    message: Id
    text: MessageText


class BranchBody(StrictObject):
    """POST /api/sessions/ID/branches"""

    at: Id
    name: BranchName | None = None


class SelectBody(StrictObject):
    """POST /api/sessions/ID/select"""

    message: Id


class PageQuery(BaseModel):
    """GET /api/sessions: what to list."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str, Field(max_length=500)] = ""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    before: Annotated[float, Field(ge=0)] | None = None


def read(body: bytes, model: type[B]) -> B:
    """Read a body; an empty one is an empty object. Raises RequestError with the field's path."""
    return wb.read(body or b"{}", model)


def choices_of(body: SettingsBody) -> Choices:
    """Settings as the session stores them."""
    return Choices(**body.model_dump())


def request_of(choices: Choices, messages: tuple[Message, ...], namespace: str) -> Request:
    """The request that a session makes, as the client APIs make it of a body."""
    temperature = DEFAULT_TEMPERATURE if choices.temperature is None else choices.temperature
    return Request(
        model=None,
        messages=messages,
        sampling=wb.sampling(temperature, 1.0 if choices.top_p is None else choices.top_p),
        max_tokens=choices.max_tokens,
        template_args={} if choices.thinking is None else {"enable_thinking": choices.thinking},
        namespace=namespace,
        thinking_budget=choices.thinking_budget,
    )


# --- sessions and messages as clients see them ---


def session_json(
    session: Session,
    tree: Tree | None = None,
    *,
    running: str | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """A session without its messages. With `tree`, how much of the context its branch fills."""
    path = tree.path(session.head) if tree is not None else []
    return {
        "id": session.id,
        **session_fields(session),
        "context": {"used": context_used(path), "limit": limit},
        "compacted": any(e.covers for e in path),
        "running": running,
    }


def session_fields(session: Session) -> dict[str, Any]:
    """The fields of a session that its exported file has too."""
    return {
        "title": session.title,
        "created": session.created,
        "updated": session.updated,
        "pinned": session.pinned,
        "origin": session.origin,
        "client": session.client,
        "settings": asdict(session.choices),
        "branch": session.branch,
        "branches": _branches(session),
    }


def _branches(session: Session) -> list[dict[str, Any]]:
    return [{"name": name, "head": head} for name, head in session.branches.items()]


def message_json(entry: Entry, tree: Tree) -> dict[str, Any]:
    """One message at its place in the tree."""
    m = entry.message
    return {
        "id": entry.id,
        "parent": entry.parent,
        "role": "summary" if entry.covers else m.role,
        "text": m.text,
        "reasoning": m.reasoning,
        "tool_calls": [asdict(c) for c in m.tool_calls],
        "tool_call_id": m.tool_call_id,
        "images": False,
        "created": entry.created,
        "turn": entry.turn,
        "siblings": tree.siblings(entry.id),
        "finish": entry.finish,
        "covers": entry.covers,
    }


def tree_json(session: Session, tree: Tree) -> dict[str, Any]:
    """The whole tree, each message by its first words."""
    messages = [
        {"id": e.id, "parent": e.parent, "role": e.message.role, "title": e.message.text[:80]}
        for e in tree
    ]
    return {"messages": messages, "branches": _branches(session)}


# --- events of a turn ---


def frame(name: str, data: Mapping[str, Any]) -> bytes:
    """One server-sent event of the session API."""
    return b"event: " + name.encode() + b"\ndata: " + sse.dump(data) + b"\n\n"


def told(message: Message) -> list[bytes]:
    """The frames of what a reply says already."""
    known = (("reasoning", message.reasoning), ("text", message.text))
    return [frame(name, {"text": text}) for name, text in known if text]


class TurnFrames:
    """Makes frames of one turn's events. Belongs to one turn.

    `clock`: seconds from any start; by it the time that is left of a prefill is estimated.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start: tuple[float, int] | None = None

    def of(self, event: Event) -> list[bytes]:
        """The frames of an event; none where a session's client need not see it."""
        match event:
            case ev.Progress(done, total, waits=waits):
                return [frame("progress", self._progress(done, total) | {"waits": waits})]
            case ev.ReasoningDelta(text) if text:
                return [frame("reasoning", {"text": text})]
            case ev.TextDelta(text) if text:
                return [frame("text", {"text": text})]
            case ev.CallStart(index, id, name):
                call = {"index": index, "id": id, "name": name, "arguments": ""}
                return [frame("tool_call", call)]
            case ev.CallDelta(index, arguments) if arguments:
                call = {"index": index, "id": None, "name": None, "arguments": arguments}
                return [frame("tool_call", call)]
        return []

    def _progress(self, done: int, total: int) -> dict[str, Any]:
        now = self._clock()
        if self._start is None:
            self._start = (now, done)
        at, start = self._start
        rate = (done - start) / (now - at) if now > at else 0.0
        left = (total - done) / rate if rate else None
        percent = round(100 * done / max(total, 1), 1)
        return {"done": done, "total": total, "percent": percent, "seconds_left": left}


def error_frame(error: Exception) -> bytes:
    """The frame that ends a failed turn."""
    return frame("error", openai_error(error)[1])


def read_page(params: Mapping[str, str]) -> PageQuery:
    """Which sessions to list. Raises RequestError."""
    try:
        return PageQuery.model_validate(dict(params))
    except ValidationError as e:
        raise refusal(e, frozenset()) from None
