"""Every field of the SDKs' request types is in one class, and what is sent is treated as told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from sample_turns import FULL, HEAD
from sdk_types import Place, places

from everwarm.errors import NotFound, RequestError
from everwarm.request import Request
from everwarm.server.ignored import IgnoredFields
from everwarm.wire import formats
from everwarm.wire.anthropic import parse_count
from everwarm.wire.format import Head, ParsedRequest
from everwarm.wire.formats import BODIES
from everwarm.wire.reference import objects_of, page

PLACES = list(places())
PARSERS = {
    "/v1/chat/completions": formats.CHAT,
    "/v1/completions": formats.COMPLETIONS,
    "/v1/responses": formats.RESPONSES,
    "/v1/messages": formats.MESSAGES,
}


def parsed(route: str, body: dict[str, Any]) -> Request | ParsedRequest:
    raw = json.dumps(body).encode()
    return parse_count(raw) if route.endswith("count_tokens") else PARSERS[route].parse(raw, "")


def noted_in(route: str, body: dict[str, Any]) -> tuple[str, ...]:
    made = parsed(route, body)
    return made.ignored if isinstance(made, Request) else made.request.ignored


def asked_for(route: str, body: dict[str, Any]) -> str:
    """All that a body asks for, spelled: the request, and how a turn would be answered."""
    made = parsed(route, body)
    if isinstance(made, Request):
        return repr(replace(made, ignored=()))
    stream, whole = made.encoder(HEAD), made.encoder(HEAD)
    told = json.dumps([[c for e in FULL for c in stream.chunks(e)], whole.fold(FULL)])
    how = replace(made, encoder=Head, request=replace(made.request, ignored=()))
    return repr(how) + told


def fault(place: Place) -> str:
    """What is wrong with how the bodies of a place are treated; empty where nothing is."""
    if place.kind is None:
        return "our models do not know it"
    seen = set()
    for body in place.bodies:
        try:
            noted = noted_in(place.route, body)
        except NotFound:
            seen.add("honoured")  # it names what is not kept here
        except RequestError as e:
            if e.code == "previous_response_not_found":
                seen.add("honoured")
                continue
            told = e.param or ""
            if e.code == "previous_response_not_found":
                seen.add("honoured")  # so does this
                continue
            if not (place.path.startswith(told) or told.startswith(place.path)):
                return f"something else is refused: {e.message}"
            seen.add("refused")
        else:
            asks = place.kind != "refused" or any(_asks(body, place.path))
            here = place.kind_path in noted
            seen.add("noted" if here else "honoured" if asks else "refused")
    if place.kind == "honoured":  # some of its values may be refused, or newer than we are
        return "" if "honoured" in seen else f"it is {seen}"
    return "" if seen == {place.kind} else f"it is {seen}"


def _asks(body: Any, path: str) -> Iterator[bool]:
    """Whether the value at a path asks for anything."""
    for step in path.split("."):
        body = body[int(step) if step.isdecimal() else step]
    yield bool(body)


@pytest.mark.parametrize("route", BODIES)
def test_every_field_of_the_sdks_is_in_one_class_and_treated_so(route: str) -> None:
    mine = [p for p in PLACES if p.route == route]
    faults = {f"{p.kind_path} ({p.kind})": fault(p) for p in mine}
    assert {k: v for k, v in faults.items() if v} == {}
    assert len(mine) > 30


def test_a_strict_server_refuses_every_noted_field_by_its_path() -> None:
    strict = IgnoredFields(strict=True)
    noted = [p for p in PLACES if p.kind == "noted"]
    assert len(noted) > 200
    for place in noted:
        for body in place.bodies:
            alone = [n for n in noted_in(place.route, body) if n == place.kind_path]
            with pytest.raises(RequestError) as refused:
                strict.check(alone)
            assert refused.value.param == place.kind_path


IDLE = {
    "n": "it is 1",
    "best_of": "it is 1",
    "modalities": "answers are text",
    "truncation": "a prompt that is too long is refused",
    "context_management.edits": "only an edit that cuts nothing is accepted",
    "messages[].content[].signature": "read where it is a seal of ours (test_sealed.py)",
    "messages[].content[].data": "read where it is a seal of ours",
    "input[].encrypted_content": "read where it is a seal of ours",
    "previous_response_id": "read where that response is kept",
    "input[].id": "read where it is ours: which items are one reply's",
    "input[].namespace": "read where such a tool is offered",
}
"""What makes no difference in so small a body, and why it is called honoured."""
COUNTED = {"thinking", "output_config", "tool_choice", "context_management"}
"""What an answer needs, and counting does not."""


def test_what_is_called_honoured_makes_a_difference() -> None:
    differs: dict[tuple[str, str], bool] = {}
    for place in PLACES:
        tells = place.kind == "honoured" and not place.is_object
        if not tells or place.kind_path.endswith(("type", "role")):
            continue
        where, seen = (place.route, place.kind_path), set[str]()
        for body in [*place.bodies, *([place.without] if place.without else [])]:
            with suppress(RequestError):
                seen.add(asked_for(place.route, body))
        differs[where] = differs.get(where, False) or len(seen) > 1
    idle = {where for where, does in differs.items() if not does}
    counting = {w for w in idle if w[0].endswith("tokens") and w[1].split(".")[0] in COUNTED}
    assert {path for _, path in idle - counting} <= set(IDLE)


def test_the_page_is_up_to_date() -> None:
    docs = Path(__file__).parents[2] / "docs" / "wire.md"
    assert page() in docs.read_text(), "run tools/wire_page.py"


def test_no_field_is_told_twice() -> None:
    for model in BODIES.values():
        objects = list(objects_of(model))
        assert len({o.path for o in objects}) == len(objects)
        for o in objects:
            assert len({f.name for f in o.fields}) == len(o.fields), asdict(o)
