"""Stored responses are bounded by number and bytes, and share what they have in common."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from everwarm.errors import NotFound
from everwarm.server.response_store import ResponseStore
from everwarm.wire.stored_items import StoredItem


def item(item_id: str, text: str = "") -> StoredItem:
    return StoredItem(item_id, json.dumps({"id": item_id, "text": text}).encode())


def response(n: int, *output: str, text: str = "") -> dict[str, Any]:
    return {"id": f"resp_{n}", "output": [{"id": o, "text": text} for o in output]}


def test_the_oldest_make_room() -> None:
    store = ResponseStore(max_responses=2)
    for n in range(3):
        store.put("", response(n, f"msg_{n}"), [item("msg_first")])
    with pytest.raises(NotFound) as gone:
        store.get("", "resp_0")
    assert "latest 2" in gone.value.message
    assert store.item("", "msg_0") is None
    assert store.item("", "msg_first") and store.item("", "msg_2")


def test_bytes_are_bounded_too() -> None:
    store = ResponseStore(max_nbytes=50_000)
    for n in range(100):
        store.put("", response(n, f"msg_{n}", text="x" * 5000), [])
        assert store.nbytes <= 50_000
    assert 5 <= len(store) < 10
    assert store.get("", "resp_99")


def test_one_that_is_too_large_costs_no_other() -> None:
    store = ResponseStore(max_nbytes=50_000)
    store.put("", response(1, "msg_1"), [])
    store.put("", response(2, "msg_2", text="x" * 60_000), [])
    assert store.get("", "resp_1")
    with pytest.raises(NotFound):
        store.get("", "resp_2")


def test_many_places_of_one_item_count() -> None:
    store = ResponseStore(max_nbytes=2**20)
    store.put("", response(0), [item("msg_a")] * 30_000)
    assert store.nbytes > 30_000 * 8
    for n in range(1, 100):
        store.put("", response(n), [item("msg_a")] * 30_000)
    assert len(store) < 4


def test_an_item_lives_as_long_as_a_response_has_it() -> None:
    store = ResponseStore()
    store.put("", response(1, "msg_1"), [item("msg_a")])
    store.put("", response(2, "msg_2"), [item("msg_a"), item("msg_1")])
    store.delete("", "resp_1")
    assert store.item("", "msg_1") and store.item("", "msg_a")
    store.delete("", "resp_2")
    assert store.item("", "msg_1") is None and store.item("", "msg_a") is None
    assert (store.nbytes, len(store)) == (0, 0)
    with pytest.raises(NotFound):
        store.delete("", "resp_2")


def test_an_item_that_comes_back_in_other_words_is_still_found_as_it_was() -> None:
    store = ResponseStore()
    store.put("", response(1, "msg_1", text="ours"), [])
    store.put("", response(2), [item("msg_1", "theirs")])
    found = store.item("", "msg_1")
    assert found is not None and json.loads(found.json)["text"] == "ours"
    assert json.loads(store.get("", "resp_2").input[0].json)["text"] == "theirs"


def test_random_histories_leave_nothing_behind() -> None:
    rng = random.Random(5)
    store = ResponseStore(max_responses=8, max_nbytes=20_000)
    for n in range(3000):
        if rng.random() < 0.3 and len(store):
            alive = rng.choice([i for i in range(n) if store.conversation("", f"resp_{i}")] or [-1])
            if alive >= 0:
                store.delete("", f"resp_{alive}")
        given = [item(f"msg_{rng.randrange(9)}", "x" * rng.randrange(300)) for _ in range(4)]
        output = [f"msg_{rng.randrange(9)}" for _ in range(rng.randrange(3))]
        store.put("", response(n, *output), given)
        assert store.nbytes <= 20_000 and len(store) <= 8
    for n in range(3000):
        if store.conversation("", f"resp_{n}") is not None:
            store.delete("", f"resp_{n}")
    assert (store.nbytes, len(store), store._items) == (0, 0, {})
