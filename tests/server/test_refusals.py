"""Every request that is refused leaves one line in the log, and no client can fill it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgi import Scripted, ask
from sample_turns import FULL

from everwarm.config import Settings
from everwarm.errors import TooLong
from everwarm.events import Event
from everwarm.server.answer import Answer, CountTokens
from everwarm.server.bodies import Bodies
from everwarm.server.guard import Guard
from everwarm.server.refusals import ALL_A_MINUTE, SAME_A_MINUTE, Refusals, blame
from everwarm.server.response_store import ResponseStore
from everwarm.wire import formats

AGENT = [("Host", "localhost"), ("User-Agent", "opencode/1.18.33 (linux; secret)")]
SECRET = "the words of a user"


class Counts:
    async def count(self, request: object) -> int:
        raise TooLong(SECRET)


def app(settings: Settings | None = None) -> tuple[Guard, Scripted]:
    async def script() -> AsyncIterator[Event]:
        for event in FULL:
            yield event

    turns, settings = Scripted(script), settings or Settings()
    store = ResponseStore()
    paths: dict[str, Any] = {
        "/v1/chat/completions": Answer(
            formats.CHAT, turns, settings, model="m", store=ResponseStore()
        ),
        "/v1/messages": Answer(formats.MESSAGES, turns, settings, model="m", store=store),
        "/v1/messages/count_tokens": CountTokens(Counts(), Bodies(settings.max_body)),
    }

    async def route(scope: Any, receive: Any, send: Any) -> None:
        await paths[scope["path"]](scope, receive, send)

    return Guard(route, settings), turns


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    with caplog.at_level(logging.INFO, "everwarm.refused"):
        yield _Lines(caplog)


class _Lines(list[str]):
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __iter__(self) -> Iterator[str]:
        return (r.message for r in self._caplog.records if r.name == "everwarm.refused")


def body(**changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": SECRET}]} | changes


@pytest.mark.parametrize(
    ("path", "sent", "status", "facts"),
    [
        ("/v1/chat/completions", body(temperature="hot"), 400, "param=temperature code=-"),
        ("/v1/messages", body(max_tokens=-1), 400, "param=max_tokens code=-"),
        ("/v1/chat/completions", b"no json " + SECRET.encode(), 400, "param="),
        ("/v1/messages/count_tokens", body(), 400, "param=messages code=context_length_exceeded"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_parameter(
    lines: list[str], path: str, sent: Any, status: int, facts: str
) -> None:
    answered = ask(app()[0], path, sent, headers=AGENT)
    assert answered.status == status
    (line,) = lines
    assert line.startswith(f"refused={status} method=POST path={path} {facts}")
    assert line.endswith("client=opencode")
    assert "words" not in line and "secret" not in line


def test_who_may_not_call_is_written_down_too(lines: list[str]) -> None:
    guard, _ = app(Settings(api_key="a key that nobody may see"))
    assert ask(guard, "/v1/messages", body(), headers=AGENT).status == 401
    assert ask(guard, "/v1/messages", body(), headers=[("Host", "evil.example")]).status == 403
    first, second = lines
    assert first.startswith("refused=401 method=POST path=/v1/messages")
    assert second.startswith("refused=403") and second.endswith("client=-")
    assert "nobody" not in first + second and "evil" not in first + second


def test_what_is_answered_leaves_no_line(lines: list[str]) -> None:
    assert ask(app()[0], "/v1/chat/completions", body(), headers=AGENT).status == 200
    assert list(lines) == []


@pytest.mark.parametrize(
    ("path", "agent"),
    [
        ("/a\nrefused=200 path=/x", "opencode"),
        ("/\x1b[31m\u202e", "\x1b]0;title\x07"),
        ("/" + "a" * 10_000, "b" * 10_000),
        ("/a b=c", 'x" y=z'),
    ],
)
def test_a_line_holds_nothing_that_a_terminal_or_a_parser_takes_for_more(
    lines: list[str], path: str, agent: str
) -> None:
    scope = {"method": "GET", "path": path, "headers": [(b"user-agent", agent.encode())]}
    Refusals().note(scope, 404)
    (line,) = lines
    assert line.isascii() and line.isprintable() and len(line) < 300
    assert line.count("=") == line.count(" ") + 1 == 6


def test_a_client_in_a_loop_cannot_fill_the_log(lines: list[str]) -> None:
    now = 1000.0
    refusals = Refusals(lambda: now)
    scope = {"method": "POST", "path": "/v1/messages", "headers": []}
    other = scope | {"path": "/v1/models/none"}
    for _ in range(1000):
        refusals.note(scope, 400)
    assert len(list(lines)) == SAME_A_MINUTE
    refusals.note(other, 404)
    *_, line = lines
    assert line.endswith(f"client=- left_out={1000 - SAME_A_MINUTE}")
    for n in range(1000):
        refusals.note(scope | {"path": f"/{n}"}, 404)
    assert len(list(lines)) == ALL_A_MINUTE
    now += 60.0
    refusals.note(scope, 400)
    assert len(list(lines)) == ALL_A_MINUTE + 1


@pytest.mark.parametrize(("status", "n"), [(200, 0), (304, 0), (499, 0), (400, 1), (503, 1)])
def test_only_refusals_are_written(lines: list[str], status: int, n: int) -> None:
    Refusals().note({"method": "GET", "path": "/", "headers": []}, status)
    assert len(list(lines)) == n


@pytest.mark.parametrize(("given", "wanted"), [("true", True), ("false", False), (None, None)])
def test_a_header_says_whether_reminders_stay(given: str | None, wanted: bool | None) -> None:
    guard, turns = app()
    more = [("X-Everwarm-Sticky-Reminders", given)] if given else []
    for path, extra in (("/v1/chat/completions", {}), ("/v1/messages", {"max_tokens": 9})):
        answered = ask(guard, path, body(**extra), headers=[*AGENT, *more])
        assert answered.status == 200
    assert [r.sticky_reminders for r in turns.requests] == [wanted, wanted]


def test_a_header_that_says_neither_is_refused_by_name(lines: list[str]) -> None:
    more = [("X-Everwarm-Sticky-Reminders", "perhaps")]
    answered = ask(app()[0], "/v1/chat/completions", body(), headers=[*AGENT, *more])
    assert answered.status == 400
    assert answered.json["error"]["param"] == "x-everwarm-sticky-reminders"
    (line,) = lines
    assert "param=x-everwarm-sticky-reminders" in line


def test_a_request_does_not_hold_the_error_whose_frames_hold_it() -> None:
    scope: dict[str, Any] = {}
    error = TooLong(SECRET, param="messages")
    held = weakref.ref(error)
    blame(scope, error)
    del error
    assert held() is None, "the request's texts would stay until the next full collection"
