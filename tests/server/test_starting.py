"""Before there is an app: what is answered, what is held, and what is refused."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from asgi import Answered, ask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everwarm.errors import ConfigError
from everwarm.job import EngineHealth
from everwarm.server.starting import Starting, preferred_wait_s


async def page(_: Request) -> Response:
    return Response("starting")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("real")(scope, receive, send)


class Engine:
    """An engine in the state that it is told."""

    def __init__(self, health: EngineHealth) -> None:
        self.now = health

    def health(self) -> EngineHealth:
        return self.now


def starting(hold_s: float = 20.0) -> Starting:
    return Starting("tiny", {"/": page, "/dashboard": page}, hold_s)


def post(front: Starting, prefer: str = "", path: str = "/v1/chat/completions") -> Answered:
    headers = [("Host", "localhost"), *([("Prefer", prefer)] if prefer else [])]
    return ask(front, path, {}, headers=headers)


def test_health_tells_what_is_being_done() -> None:
    front = starting()
    front.say("The default model is being fetched.")
    answer = ask(front, "/health", method="GET")
    assert answer.status == 200
    assert answer.json == {
        "status": "starting",
        "model": "tiny",
        "why": "The default model is being fetched.",
    }
    assert ask(front, "/ready", method="GET").status == 503


def test_a_held_request_is_answered_by_the_app_that_comes() -> None:
    front = starting()
    engine: Any = Engine(EngineHealth(state="loading"))
    timer = threading.Timer(0.3, lambda: front.go_on(app, engine))
    timer.start()
    began = time.monotonic()
    assert post(front).body == b"real"
    assert time.monotonic() - began >= 0.25
    timer.join()


@pytest.mark.parametrize(("hold_s", "prefer"), [(0.2, ""), (20.0, "wait=0")])
def test_who_has_waited_long_enough_is_told_to_come_back(hold_s: float, prefer: str) -> None:
    answer = post(starting(hold_s), prefer)
    assert answer.status == 503 and int(answer.headers["retry-after"]) > 0
    assert answer.json["error"]["code"] == "overloaded"
    shape = post(starting(hold_s), prefer, "/v1/messages").json
    assert shape["error"]["type"] == "overloaded_error"


def test_where_nothing_will_come_nobody_waits() -> None:
    front = starting()
    front.give_up(ConfigError("There is no such model."))
    answer = post(front)
    assert answer.status == 503 and answer.json["error"]["message"] == "There is no such model."
    assert ask(front, "/health", method="GET").status == 503


def test_pages_are_the_starting_page_until_the_engine_was_ready_once() -> None:
    front = starting()
    engine: Any = Engine(EngineHealth(state="loading"))
    front.go_on(app, engine)
    assert ask(front, "/dashboard", method="GET").body == b"starting"
    assert ask(front, "/api/ps", method="GET").body == b"real"
    engine.now = EngineHealth()
    assert ask(front, "/dashboard", method="GET").body == b"real"
    engine.now = EngineHealth(state="loading")
    assert ask(front, "/dashboard", method="GET").body == b"real"


def test_an_engine_that_starts_again_is_waited_for_as_long_as_the_client_wants() -> None:
    front = starting()
    engine: Any = Engine(EngineHealth(state="restarting"))
    front.go_on(app, engine)
    assert post(front).body == b"real"  # it waits in the app, with signs of life
    assert post(front, "wait=0").status == 503
    timer = threading.Timer(0.3, lambda: setattr(engine, "now", EngineHealth()))
    timer.start()
    assert post(front, "respond-async, wait=10").body == b"real"
    timer.join()


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("wait=10", 10.0),
        ('respond-async, Wait = "5"', 5.0),
        ("wait=0;x=1", 0.0),
        ("await=3", None),
        ("wait=-1", None),
        ("wait=x", None),
        ("respond-async", None),
    ],
)
def test_a_preference_is_read(value: str, wait_s: float | None) -> None:
    assert preferred_wait_s({"headers": [(b"prefer", value.encode())]}) == wait_s
