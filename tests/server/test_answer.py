"""One path for all formats: signs of life, failures in the format's own shape, what is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asgi import Answered, Scripted, ask
from sample_turns import FULL, turn
from serving import sse
from starlette.requests import Request as HttpRequest

from everwarm.config import Settings
from everwarm.errors import EngineError, RequestError
from everwarm.events import Event, Progress, Started, TextDelta
from everwarm.server.answer import Answer
from everwarm.server.bodies import read_body
from everwarm.server.response_store import ResponseStore
from everwarm.server.stream import Pace
from everwarm.wire import formats
from everwarm.wire.format import Format

HI = [{"role": "user", "content": "hi"}]
BODIES: dict[str, tuple[Format, dict[str, Any]]] = {
    "chat": (formats.CHAT, {"messages": HI}),
    "completions": (formats.COMPLETIONS, {"prompt": "hi"}),
    "responses": (formats.RESPONSES, {"input": "hi"}),
    "messages": (formats.MESSAGES, {"messages": HI, "max_tokens": 9}),
}
ALL = pytest.mark.parametrize("name", BODIES)
QUIET = 0.02

Script = Callable[[], AsyncIterator[Event]]


def answered(
    name: str,
    script: Script,
    *,
    kept: ResponseStore | None = None,
    every_s: float = 600.0,
    sent: list[Any] | None = None,
    **fields: Any,
) -> Answered:
    fmt, body = BODIES[name]
    turns = Scripted(script)
    store = ResponseStore() if kept is None else kept
    endpoint = Answer(fmt, turns, Settings(), model="tiny", store=store, every_s=every_s)
    return ask(endpoint, body=body | fields, sent=sent)


def says(events: list[Event]) -> Script:
    async def script() -> AsyncIterator[Event]:
        for event in events:
            yield event

    return script


ENOUGH = 5
"""ASGI messages: the headers, what `Started` becomes, and at least three signs of life."""


def slow_prefill(sent: list[Any]) -> Script:
    """Chunks come faster than signs of life are due, and say nothing that a client would see."""

    async def script() -> AsyncIterator[Event]:
        yield Started(10_000)
        for done in range(10_000):
            if len(sent) >= ENOUGH:
                break
            yield Progress(done, 10_000, 0)
            await asyncio.sleep(QUIET / 4)
        for event in turn(TextDelta("so"))[3:]:
            yield event

    return script


def waits(sent: list[Any]) -> Script:
    """Nothing at all happens until the client heard of us often enough."""

    async def script() -> AsyncIterator[Event]:
        yield Started(100)
        for _ in range(10_000):
            if len(sent) >= ENOUGH:
                break
            await asyncio.sleep(QUIET / 4)
        for event in turn(TextDelta("so"))[3:]:
            yield event

    return script


def fails_with(error: Exception, *, wait_s: float = 0.0) -> Script:
    async def script() -> AsyncIterator[Event]:
        yield Started(100)
        yield TextDelta("so")
        await asyncio.sleep(wait_s)
        raise error

    return script


def refuses() -> AsyncIterator[Event]:
    async def script() -> AsyncIterator[Event]:
        raise RequestError("Too long.", param="messages", code="context_length_exceeded")
        yield Started(0)

    return script()


def frames_of(answer: Answered) -> list[Any]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [data for _, data in sse(answer.body)]


def is_alive(frame: Any) -> bool:
    return isinstance(frame, dict) and "progress" in frame.get("everwarm", {})


@ALL
def test_a_stream_shows_life_all_through_a_prefill(name: str) -> None:
    sent: list[Any] = []
    script = slow_prefill(sent)
    frames = frames_of(answered(name, script, every_s=QUIET, sent=sent, stream=True))
    alive = [f["everwarm"]["progress"] for f in frames if is_alive(f)]
    assert len(alive) >= 3
    assert [p["done"] for p in alive] == sorted(p["done"] for p in alive)
    assert alive[-1]["total"] == 10_000


@ALL
def test_a_stream_shows_life_while_nothing_happens(name: str) -> None:
    sent: list[Any] = []
    answer = answered(name, waits(sent), every_s=QUIET, sent=sent, stream=True)
    assert len(answer.parts) >= ENOUGH + 1
    assert "so" in json.dumps(frames_of(answer))


@ALL
def test_an_unstreamed_answer_is_held_open_by_white_space(name: str) -> None:
    sent: list[Any] = []
    answer = answered(name, slow_prefill(sent), every_s=QUIET, sent=sent)
    assert answer.parts[:3] == [b"\n"] * 3
    assert answer.complete and "so" in json.dumps(answer.json)


@ALL
def test_a_quick_answer_has_nothing_before_it(name: str) -> None:
    answer = answered(name, says(FULL))
    assert answer.body.startswith(b"{")
    assert answer.headers["content-type"] == "application/json"


@ALL
@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_has_its_own_status_and_shape(name: str, stream: bool) -> None:
    answer = answered(name, refuses, stream=stream)
    assert answer.status == 400
    error = answer.json["error"]
    if name == "messages":
        assert (answer.json["type"], error["type"]) == ("error", "invalid_request_error")
    else:
        own = {"completions": "prompt", "responses": "input"}.get(name, "messages")
        assert (error["param"], error["code"]) == (own, "context_length_exceeded")


@ALL
@pytest.mark.parametrize("error", [EngineError("It broke."), ZeroDivisionError("secret")])
def test_a_stream_that_fails_ends_with_an_error_event(name: str, error: Exception) -> None:
    answer = answered(name, fails_with(error), stream=True)
    assert answer.complete
    frames = [f for f in frames_of(answer) if f != "[DONE]"]
    said = json.dumps(frames[-1])
    assert "secret" not in said
    assert ("It broke." in said) == isinstance(error, EngineError)
    if name == "messages":
        assert sse(answer.body)[-1][0] == "error"
    if name == "responses":
        assert frames[-1]["type"] == "response.failed"


@ALL
def test_an_unstreamed_failure_is_500_in_its_shape(name: str) -> None:
    answer = answered(name, fails_with(ZeroDivisionError("secret")))
    assert answer.status == 500
    assert b"secret" not in answer.body and "error" in answer.json


@ALL
def test_an_unstreamed_failure_behind_white_space_ends_unfinished(name: str) -> None:
    script = fails_with(EngineError("It broke."), wait_s=QUIET * 3)
    answer = answered(name, script, every_s=QUIET)
    assert not answer.complete
    assert answer.body.strip() == b""


@pytest.mark.parametrize("stream", [False, True])
def test_only_what_is_to_be_stored_is_kept(stream: bool) -> None:
    kept = ResponseStore()
    answer = answered("responses", says(FULL), kept=kept, stream=stream, instructions="Be kind.")
    first = frames_of(answer)[-1]["response"] if stream else answer.json
    stored = kept.get("", first["id"])
    assert json.loads(stored.json()) == first
    asked, *said = [json.loads(item.json) for item in stored.items]
    assert (asked["role"], asked["content"][0]["text"]) == ("user", "hi")
    assert [i["type"] for i in said] == ["reasoning", "message", "function_call", "function_call"]
    assert said == first["output"]
    assert len(kept) == 1
    answered("responses", says(FULL), kept=kept, stream=stream, store=False)
    assert len(kept) == 1


def test_an_answer_is_stored_before_its_client_hears_of_its_end() -> None:
    kept = ResponseStore()
    lengths: list[int] = []

    class Sent(list[Any]):
        def append(self, message: Any) -> None:
            if b"response.completed" in message.get("body", b""):
                lengths.append(len(kept))
            super().append(message)

    answered("responses", says(turn(TextDelta("so"))), kept=kept, sent=Sent(), stream=True)
    assert lengths == [1]


def test_a_body_that_is_too_large_is_refused_by_its_length() -> None:
    fmt, _ = BODIES["messages"]
    settings = Settings(max_body=10)
    endpoint = Answer(fmt, Scripted(says(FULL)), settings, model="tiny", store=ResponseStore())
    lied = ask(endpoint, body=b"x" * 11)
    said = ask(endpoint, body=b"", headers=[("Host", "localhost"), ("Content-Length", "11")])
    assert (lied.status, said.status) == (413, 413)
    assert said.json["error"]["type"] == "request_too_large"


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def silence() -> Any:
        await asyncio.Event().wait()

    async def read() -> bytes:
        http = HttpRequest({"type": "http", "headers": []}, silence)
        return await read_body(http, 10, within_s=0.01)

    with pytest.raises(RequestError) as late:
        asyncio.run(read())
    assert late.value.status == 408


def test_a_request_s_id_comes_back() -> None:
    fmt, body = BODIES["messages"]
    endpoint = Answer(fmt, Scripted(says(FULL)), Settings(), model="tiny", store=ResponseStore())
    own = ask(endpoint, body=body)
    assert own.headers["request-id"] == own.json["id"]
    given = ask(endpoint, body=body, headers=[("x-request-id", "abc-1")])
    assert given.headers["x-request-id"] == "abc-1"
    odd = ask(endpoint, body=body, headers=[("x-request-id", "a\rb")])
    assert odd.headers["x-request-id"].startswith("msg_")


def test_a_sign_of_life_is_due_after_silence_only() -> None:
    now = [0.0]
    pace = Pace(10, lambda: now[0])
    now[0] = 9.0
    assert pace.left == 1.0
    pace.sent()
    now[0] = 19.0
    assert pace.left == 0.0
