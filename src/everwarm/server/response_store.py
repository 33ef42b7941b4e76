"""Responses that clients asked to store, and the items that they are made of.

They are kept in memory, bounded by number and by bytes, and are gone with the server: a client that
wants more keeps its own history. An item that several responses have is held once, and is found by
its id as long as one of them is stored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, Final

from everwarm.errors import NotFound
from everwarm.wire import sse
from everwarm.wire.stored_items import MAX_RESPONSES, StoredItem, item_json

MAX_NBYTES: Final = 64 * 2**20
_ITEM_NBYTES: Final = 512
"""What an item takes beside its JSON."""
_PLACE_NBYTES: Final = 16
"""What an item takes in each response that has it."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response. `head`: everything but its output, as JSON; never empty."""

    head: bytes
    input: tuple[StoredItem, ...]
    output: tuple[StoredItem, ...]

    @property
    def items(self) -> tuple[StoredItem, ...]:
        """Input and output, in order."""
        return self.input + self.output

    def json(self, include: Container[str] = ()) -> bytes:
        """The response as it was answered. `include`: as in `item_json`."""
        output = b",".join(item_json(item, include) for item in self.output)
        return self.head[:-1] + b',"output":[' + output + b"]}"

    @property
    def own_nbytes(self) -> int:
        """What it takes beside its items."""
        return len(self.head) + len(self.items) * _PLACE_NBYTES


@dataclass(slots=True)
class _SharedItem:
    """An item, and how often it stands in responses."""

    item: StoredItem
    n_places: int = 0


class ResponseStore:
    """The latest responses, by namespace and id. Live: changed on the event loop; the threads that
    parse bodies read it too (`wire.stored_items.StoredItems`)."""

    def __init__(self, max_responses: int = MAX_RESPONSES, max_nbytes: int = MAX_NBYTES) -> None:
        self._max_responses, self._max_nbytes = max_responses, max_nbytes
        self._responses: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        self._items: dict[tuple[str, str], dict[bytes, _SharedItem]] = {}
        self._lock = threading.Lock()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._responses)

    def put(self, namespace: str, response: dict[str, Any], given: Iterable[StoredItem]) -> None:
        """Store a response with its input. The oldest ones are dropped to make room; one that is
        larger than all room is not stored."""
        head = sse.dump({k: v for k, v in response.items() if k != "output"})
        output = tuple(StoredItem(item["id"], sse.dump(item)) for item in response["output"])
        made = StoredResponse(head, tuple(given), output)
        if made.own_nbytes + sum(map(_nbytes, set(made.items))) > self._max_nbytes:
            return
        with self._lock:
            self._add((namespace, response["id"]), made)
            while len(self) > self._max_responses or self.nbytes > self._max_nbytes:
                self._drop(next(iter(self._responses)))

    def get(self, namespace: str, response_id: str) -> StoredResponse:
        """A response. Raises NotFound."""
        with self._lock:
            found = self._responses.get((namespace, response_id))
        if found is None:
            raise NotFound(
                "No response with this id is stored here. Responses are kept in memory, the latest "
                f"{self._max_responses:,}, unless they were asked for with store: false.",
                param="response_id",
            )
        return found

    def delete(self, namespace: str, response_id: str) -> None:
        """Forget a response, and the items that no other one has. Raises NotFound."""
        self.get(namespace, response_id)
        with self._lock:
            self._drop((namespace, response_id))

    def conversation(self, namespace: str, response_id: str) -> tuple[StoredItem, ...] | None:
        """Input and output of a response; None where it is not stored."""
        with self._lock:
            found = self._responses.get((namespace, response_id))
        return None if found is None else found.items

    def item(self, namespace: str, item_id: str) -> StoredItem | None:
        """An item of any stored response. Where a client sent an item back in other words, ours."""
        with self._lock:
            same_id = self._items.get((namespace, item_id))
            return next(iter(same_id.values())).item if same_id else None

    def _add(self, key: tuple[str, str], made: StoredResponse) -> None:
        namespace, _ = key
        given = tuple(self._shared(namespace, item) for item in made.input)
        output = tuple(self._shared(namespace, item) for item in made.output)
        self._responses[key] = StoredResponse(made.head, given, output)
        self.nbytes += made.own_nbytes

    def _shared(self, namespace: str, item: StoredItem) -> StoredItem:
        """The item as it is held already, with one place more."""
        same_id = self._items.setdefault((namespace, item.id), {})
        found = same_id.get(item.json)
        if found is None:
            found = same_id[item.json] = _SharedItem(item)
            self.nbytes += _nbytes(item)
        found.n_places += 1
        return found.item

    def _drop(self, key: tuple[str, str]) -> None:
        namespace, _ = key
        gone = self._responses.pop(key)
        self.nbytes -= gone.own_nbytes
        for item in gone.items:
            same_id = self._items[namespace, item.id]
            shared = same_id[item.json]
            shared.n_places -= 1
            if not shared.n_places:
                self.nbytes -= _nbytes(item)
                del same_id[item.json]
                if not same_id:
                    del self._items[namespace, item.id]


def _nbytes(item: StoredItem) -> int:
    return len(item.json) + len(item.id) + _ITEM_NBYTES
