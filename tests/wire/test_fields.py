"""What is noted: fields that nothing uses, fields that nobody knows, unknown values of hints."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from sample_turns import FULL, HEAD

from everwarm.errors import RequestError
from everwarm.server.ignored import HEADER, MAX_HEADER_NBYTES, MAX_KINDS, IgnoredFields, header_of
from everwarm.wire import formats
from everwarm.wire.anthropic import parse_count
from everwarm.wire.fields import MORE, MOST
from everwarm.wire.format import Format

HI = {"role": "user", "content": "hi"}
MINIMAL: list[tuple[Format, dict[str, Any]]] = [
    (formats.CHAT, {"messages": [HI]}),
    (formats.COMPLETIONS, {"prompt": "hi"}),
    (formats.RESPONSES, {"input": [HI]}),
    (formats.MESSAGES, {"messages": [HI], "max_tokens": 9}),
]


def ignored(fmt: Format, body: dict[str, Any]) -> tuple[str, ...]:
    return fmt.parse(json.dumps(body).encode(), "").request.ignored


@pytest.mark.parametrize(("fmt", "body"), MINIMAL)
def test_a_field_that_nobody_knows_is_noted_and_changes_nothing(
    fmt: Format, body: dict[str, Any]
) -> None:
    plain = fmt.parse(orjson.dumps(body), "")
    more = fmt.parse(orjson.dumps({**body, "newer_than_we_are": {"a": [1]}}), "")
    assert more.request == plain.request
    assert plain.request.ignored == ()
    assert more.request.ignored == ("newer_than_we_are",)


def test_unknown_fields_deep_inside_are_told_by_their_path_once() -> None:
    part = {"type": "text", "text": "hi", "shiny": 1}
    tool = {"type": "function", "function": {"name": "look", "shiny": 1}}
    messages = [{"role": "user", "content": [part, part], "shiny": 1}] * 3
    got = ignored(formats.CHAT, {"messages": messages, "tools": [tool, tool], "shiny": 1})
    assert set(got) == {
        "shiny",
        "messages[].shiny",
        "messages[].content[].shiny",
        "tools[].function.shiny",
    }
    assert len(got) == 4


def test_a_message_that_was_read_before_tells_what_was_noted_in_it_again() -> None:
    body = {"messages": [{**HI, "content": "seen twice", "shiny": 1}]}
    assert [ignored(formats.CHAT, body) for _ in range(3)] == [("messages[].shiny",)] * 3


@pytest.mark.parametrize("display", ["updates", "", "summarised", 5, ["omitted"], {"a": 1}, True])
def test_an_unknown_value_of_a_hint_is_noted_and_the_default_holds(display: object) -> None:
    body = {"messages": [HI], "max_tokens": 9, "thinking": {"type": "adaptive", "display": display}}
    assert ignored(formats.MESSAGES, body) == ("thinking.display",)
    assert "thinking.display" in parse_count(orjson.dumps(body)).ignored
    known = {**body, "thinking": {"type": "adaptive", "display": "omitted"}}
    assert ignored(formats.MESSAGES, known) == ()


NAMES = [
    *("two words", "a\r\nset-cookie: x", "\x00", "", "ünï", "x" * 65, "a,b", "a=b", "<b>"),
    *("a" * 9999, "\u2028", "\ud83d\ude00", "-dash", "9nine", "a\n"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_does_not_look_like_one_is_not_repeated(name: str) -> None:
    got = ignored(formats.CHAT, {"messages": [{**HI, name: 1}], name: 1})
    assert got == ("?", "messages[].?")
    assert header_of(got) == {HEADER: "?, messages[].?"}


def test_a_hundred_thousand_unknown_fields_are_listed_up_to_a_bound() -> None:
    unknown = ",".join(f'"{"k" * 50}{n}":1' for n in range(100_000))
    bodies = [
        f'{{"messages":[{{"role":"user","content":"x"}}],{unknown}}}',
        f'{{"messages":[{{"role":"user","content":"x",{unknown}}}]}}',
    ]
    for body in bodies:
        began = time.process_time()
        got = formats.CHAT.parse(body.encode(), "").request.ignored
        assert time.process_time() - began < 2
        assert len(got) == MOST + 1 and got[-1] == MORE
        header = header_of(got)[HEADER]
        assert len(header) <= MAX_HEADER_NBYTES + len(MORE) and header.endswith(MORE)


def test_unknown_fields_in_many_objects_are_listed_up_to_a_bound() -> None:
    parts = ",".join(f'{{"type":"text","text":"x","k{n}":1}}' for n in range(50_000))
    body = f'{{"messages":[{{"role":"user","content":[{parts}]}}]}}'
    got = formats.CHAT.parse(body.encode(), "").request.ignored
    assert len(got) == MOST + 1 and got[-1] == MORE


def test_each_kind_is_logged_once_and_there_is_an_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "everwarm.wire")
    fields = IgnoredFields(strict=False)
    for _ in range(3):
        fields.check(["user", "messages[].name"])
    assert [r.args[0] for r in caplog.records] == ["user", "messages[].name"]  # type: ignore[index]
    fields.check(f"k{n}" for n in range(2 * MAX_KINDS))
    assert len(caplog.records) == MAX_KINDS


def test_a_strict_server_refuses_by_name() -> None:
    fields = IgnoredFields(strict=True)
    fields.check([])
    with pytest.raises(RequestError, match="--strict") as refused:
        fields.check(["messages[].name"])
    assert refused.value.param == "messages[].name"


def test_a_response_does_not_repeat_what_was_noted() -> None:
    tool = {"type": "function", "name": "look", "shiny": 1}
    body = {"input": [HI], "tools": [tool], "shiny": 1}
    asked = formats.RESPONSES.parse(orjson.dumps(body), "")
    assert set(asked.request.ignored) == {"shiny", "tools[].shiny"}
    assert "shiny" not in json.dumps(asked.encoder(HEAD).fold(FULL))
