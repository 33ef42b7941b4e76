"""Items of stored responses: how a request refers to them, and how a client lists them.

    previous_response_id   input and output of that response, in front of the request's own input
    item_reference         one item of a stored response, in its place in the input

An item is stored as JSON with an id. Items that a client sends without one get an id from their
content and place, so that a conversation that is sent whole each time is stored once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from everwarm.errors import NotFound, RequestError
from everwarm.wire.error_json import refusal
from everwarm.wire.seals import seal
from everwarm.wire.sse import dump

MAX_RESPONSES: Final = 1000
"""How many responses are stored; the oldest is dropped first."""
_INCLUDE: Final = ("include", "include[]")
"""How clients spell the query parameter that names what to add to items."""
_SEALED: Final = "reasoning.encrypted_content"
_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item of a response's input or output, as JSON in OpenAI's shape."""

    id: str
    json: bytes


class StoredItems(Protocol):
    """Where the items of stored responses are found. Thread-safe."""

    def conversation(self, namespace: str, response_id: str) -> Sequence[StoredItem] | None:
        """Input and output of a response; None where it is not stored."""

    def item(self, namespace: str, item_id: str) -> StoredItem | None:
        """An item of any stored response."""


@dataclass(frozen=True, slots=True)
class InputItem:
    """One item of a request's input: its model, and its path in the body.

    `stored`: the stored item that it was read from; None for one that the client sent itself.
    """

    item: Any
    path: str
    stored: StoredItem | None = None


class Lookup:
    """Finds the stored items that one request refers to. Live: belongs to one reading of a body."""

    def __init__(
        self, items: StoredItems | None, namespace: str, read: Callable[[object], Any]
    ) -> None:
        self._items, self._namespace, self._read = items, namespace, read
        self._taken: set[str] = set()

    def conversation(self, response_id: str | None, items: Iterable[Any]) -> list[InputItem]:
        """The items of a whole conversation: those of a response, then the request's own. Raises
        RequestError where one of them is not stored."""
        found = self._before(response_id)
        for i, item in enumerate(items):
            path = f"input.{i}"
            is_reference = item.type == "item_reference"
            found.append(self._referred(item.id, path) if is_reference else InputItem(item, path))
        return found

    def _before(self, response_id: str | None) -> list[InputItem]:
        """The items of a stored response, which come before the input."""
        if response_id is None:
            return []
        stored = self._items
        found = None if stored is None else stored.conversation(self._namespace, response_id)
        if found is None:
            raise RequestError(
                "previous_response_id: no such response is stored here (responses are kept in "
                f"memory, the latest {MAX_RESPONSES:,}). Send the whole conversation.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        self._taken.update(item.id for item in found)
        return [self._stored(item, "previous_response_id") for item in found]

    def _referred(self, item_id: str, path: str) -> InputItem:
        """The item that a reference means. Each may be meant once: otherwise a short body could
        become a long conversation."""
        stored = self._items
        found = None if stored is None else stored.item(self._namespace, item_id)
        if found is None:
            raise NotFound(
                f"{path}.id: no item with this id is stored here (the items of the latest "
                f"{MAX_RESPONSES:,} stored responses are kept in memory). Send the item itself.",
                param=f"{path}.id",
            )
        if found.id in self._taken:
            raise RequestError(
                f"{path}.id: this item is in the input already. Leave the second one out.",
                param=f"{path}.id",
            )
        self._taken.add(found.id)
        return self._stored(found, path)

    def _stored(self, item: StoredItem, path: str) -> InputItem:
        # Not by orjson: what a model wrote may hold an escape of half a surrogate pair.
        return InputItem(self._read(json.loads(item.json)), path, item)


def stored_input(items: Iterable[InputItem]) -> tuple[StoredItem, ...]:
    """A request's input as it is stored with its response."""
    out: list[StoredItem] = []
    for i in items:
        out.append(i.stored or _to_store(i.item, out[-1].id if out else ""))
    return tuple(out)


def _to_store(item: BaseModel, before: str) -> StoredItem:
    """A client's item as OpenAI lists it. `before`: the id of the item in front of it."""
    fields = _completed(item.model_dump(exclude_unset=True, exclude_none=True))
    item_id = fields.pop("id", None)
    content = orjson.dumps(fields)
    if not item_id:
        digest = hashlib.blake2b(before.encode() + b"\0" + content, digest_size=16).hexdigest()
        item_id = f"{_PREFIXES[fields['type']]}_{digest}"
    return StoredItem(item_id, b'{"id":' + orjson.dumps(item_id) + b"," + content[1:])


def _completed(item: dict[str, Any]) -> dict[str, Any]:
    """Add the fields that OpenAI's items always have; spell as text what was sent as text."""
    match item["type"]:
        case "reasoning":
            return {"summary": [], **item}
        case "message" if item["role"] == "assistant":
            item = {**item, "content": [_output_part(part) for part in item["content"]]}
        case "function_call_output" | "custom_tool_call_output":
            item = {**item, "output": _text_or_parts(item["output"])}
    return {"status": "completed", **item}


def _output_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] not in ("input_text", "text"):
        return part
    return {"annotations": [], **part, "type": "output_text"}


def _text_or_parts(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    is_text = len(parts) == 1 and set(parts[0]) == {"type", "text"}
    return str(parts[0]["text"]) if is_text else parts


def include_of(params: Iterable[tuple[str, str]]) -> frozenset[str]:
    """What a client wants added to items."""
    return frozenset(value for name, value in params if name in _INCLUDE)


def item_json(item: StoredItem, include: Container[str]) -> bytes:
    """An item as JSON. Reasoning is sealed where that is wanted now and was not then; nothing else
    can be added later."""
    if _SEALED not in include:
        return item.json
    fields = json.loads(item.json)
    if fields.get("type") != "reasoning" or fields.get("encrypted_content"):
        return item.json
    parts = fields.get("content") or fields["summary"]
    thought = "".join(part.get("text", "") for part in parts)
    return dump({**fields, "encrypted_content": seal(thought)})


class ItemsQuery(BaseModel):
    """GET /v1/responses/{id}/input_items: which of the items to list."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


def items_page(items: Sequence[StoredItem], params: Sequence[tuple[str, str]]) -> bytes:
    """One page of a response's input. Raises RequestError with the name of a wrong parameter."""
    try:
        query = ItemsQuery.model_validate({k: v for k, v in params if k not in _INCLUDE})
    except ValidationError as e:
        raise refusal(e, frozenset()) from None
    ordered = items if query.order == "asc" else items[::-1]
    start = 0
    if query.after is not None:
        found = next((i for i, item in enumerate(ordered) if item.id == query.after), None)
        if found is None:
            raise RequestError("after: this response has no item with this id.", param="after")
        start = found + 1
    page, include = ordered[start : start + query.limit], include_of(params)
    return orjson.dumps(
        {
            "object": "list",
            "data": [orjson.Fragment(item_json(item, include)) for item in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": start + len(page) < len(ordered),
        }
    )
