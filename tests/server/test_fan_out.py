"""Turns of one request: in what order they begin, and that they end together."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sample_turns import turn

from everwarm.errors import EngineError, Overloaded, RequestError
from everwarm.events import Event, Progress, Started, TextDelta
from everwarm.request import Request
from everwarm.server.fan_out import FanOut
from everwarm.server.queue import Queue
from everwarm.server.turn import Turn
from everwarm.wire.choices import ChoiceEvent

READ = Progress(99, 100, 0)
"""All but the last token of a prompt of 100."""
HALF = Progress(50, 100, 0)


@dataclass
class Scripts:
    """Answers each turn with events of its own; a number among them is a time to wait in seconds,
    an exception is raised."""

    of_turn: dict[str, list[Any]]
    queue: Queue = field(default_factory=lambda: Queue(1))
    log: list[str] = field(default_factory=list)

    async def answer(
        self, request: Request, turn: Turn, place: object | None = None
    ) -> AsyncGenerator[Event, None]:
        self.log.append(f"begins {turn.id}")
        end = "leaves"
        try:
            for event in self.of_turn[turn.id]:
                await asyncio.sleep(event if isinstance(event, float) else 0)
                if isinstance(event, Exception):
                    end = "fails"
                    raise event
                if not isinstance(event, float):
                    yield event
            end = "ends"
        finally:
            self.log.append(f"{end} {turn.id}")

    async def checked(self, request: Request) -> Request:
        if request.raw == "bad":
            raise RequestError("Too long.", param="prompt")
        return request


def fan_out(scripts: Scripts, n_samples: int, *prompts: str) -> FanOut:
    request = Request(None, (), samples=n_samples)
    each = [replace(request, raw=p) for p in prompts or ("a",)]
    n_turns = n_samples * len(each)
    return FanOut(scripts, each, [Turn(f"t.{n}" if n else "t") for n in range(n_turns)])


def run(task: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(task(), 10))


def heard(scripts: Scripts, made: FanOut) -> list[ChoiceEvent]:
    async def hear() -> list[ChoiceEvent]:
        return [said async for said in made.events()]

    return asyncio.run(asyncio.wait_for(hear(), 10))


def test_samples_begin_when_the_prompt_is_read() -> None:
    one = [Started(100), HALF, 0.02, READ, 0.02, *turn(TextDelta("so"))[3:]]
    scripts = Scripts({"t": one, "t.1": turn(TextDelta("b")), "t.2": turn(TextDelta("c"))})
    said = heard(scripts, fan_out(scripts, 3))
    kinds = [(s.index, s.event) for s in said]
    assert kinds.index((1, Started(100))) > kinds.index((0, READ))
    assert [e for i, e in kinds if i == 2] == turn(TextDelta("c"))
    assert scripts.log[:3] == ["begins t", "begins t.1", "begins t.2"]
    assert scripts.log[-1] == "ends t"
    assert scripts.queue.n_requests == 0


@pytest.mark.parametrize("first", [[Started(100), *turn()[3:]], [TextDelta("x"), *turn()[3:]]])
def test_samples_begin_too_where_the_first_was_never_told_as_read(first: list[Any]) -> None:
    scripts = Scripts({"t": first, "t.1": turn(TextDelta("b"))})
    assert [s.event for s in heard(scripts, fan_out(scripts, 2)) if s.index == 1]


def test_prompts_follow_each_other() -> None:
    scripts = Scripts({name: turn(TextDelta(name)) for name in ("t", "t.1", "t.2", "t.3")})
    said = heard(scripts, fan_out(scripts, 2, "a", "b"))
    assert {s.index for s in said} == {0, 1, 2, 3}
    assert sorted(scripts.log[:4]) == ["begins t", "begins t.1", "ends t", "ends t.1"]
    assert scripts.log[4] == "begins t.2"


@pytest.mark.parametrize("failing", ["t", "t.1", "t.2"])
def test_one_that_fails_ends_all(failing: str) -> None:
    stays = [Started(100), READ, 5.0]
    scripts = Scripts({name: list(stays) for name in ("t", "t.1", "t.2")})
    scripts.of_turn[failing][2:] = [0.02, EngineError("It broke.")]
    with pytest.raises(EngineError):
        heard(scripts, fan_out(scripts, 3))
    assert f"fails {failing}" in scripts.log
    assert sorted(scripts.log)[-2:] == sorted(
        f"leaves {name}" for name in scripts.of_turn if name != failing
    )
    assert scripts.queue.n_requests == 0


@pytest.mark.parametrize(
    ("n_samples", "failing"), [(1, "t"), (3, "t t.1 t.2"), (3, "t"), (3, "t.2")]
)
def test_an_error_takes_what_its_turn_had_with_it(n_samples: int, failing: str) -> None:
    seen: list[weakref.ref[Any]] = []

    class Words:
        """Stands for a text of megabytes."""

    class Refuses(Scripts):
        async def answer(
            self, request: Request, turn: Turn, place: object | None = None
        ) -> AsyncGenerator[Event, None]:
            words = Words()
            seen.append(weakref.ref(words))
            yield READ
            if turn.id not in failing.split():
                await asyncio.sleep(5)
            await asyncio.sleep(0.01)
            raise EngineError("It broke.")

    async def hear() -> str:
        try:
            async for _ in fan_out(Refuses({}), n_samples).events():
                pass
        except EngineError as e:
            return e.message
        return ""

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        assert asyncio.run(hear()) == "It broke."
        assert [ref() for ref in seen] == [None] * n_samples
    finally:
        if was_enabled:
            gc.enable()


def test_a_first_sample_that_fails_before_its_prompt_is_read_lets_no_other_begin() -> None:
    scripts = Scripts({"t": [Started(100), EngineError("It broke.")], "t.1": turn()})
    with pytest.raises(EngineError):
        heard(scripts, fan_out(scripts, 2))
    assert "begins t.1" not in scripts.log


@pytest.mark.parametrize("n_heard", [0, 1, 2, 5])
def test_who_stops_listening_ends_all(n_heard: int) -> None:
    scripts = Scripts({name: [Started(100), READ, 5.0] for name in ("t", "t.1", "t.2")})

    async def leave() -> None:
        before = asyncio.all_tasks()
        async with aclosing(fan_out(scripts, 3).events()) as events:
            for _ in range(n_heard):
                await anext(events)
        assert asyncio.all_tasks() == before

    run(leave)
    begun = sorted(line[7:] for line in scripts.log if line.startswith("begins"))
    assert sorted(line[7:] for line in scripts.log if line.startswith("leaves")) == begun
    assert scripts.queue.n_requests == 0


def test_none_begins_where_one_prompt_is_refused() -> None:
    scripts = Scripts({})
    with pytest.raises(RequestError) as refused:
        heard(scripts, fan_out(scripts, 2, "a", "bad", "b"))
    assert refused.value.message == "Prompt 2 of 3: Too long."
    assert scripts.log == [] and scripts.queue.n_requests == 0


def test_a_request_takes_one_place_however_many_turns_it_has() -> None:
    scripts = Scripts({name: turn(TextDelta("a")) for name in ("t", "t.1", "t.2", "t.3")})
    with scripts.queue.place(), pytest.raises(Overloaded):
        heard(scripts, fan_out(scripts, 4))
    assert heard(scripts, fan_out(scripts, 4))
