"""A session's turn is stopped whenever somebody asks for it, also before it has begun."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prompt_templates import DROPS_REASONING

from everwarm.chat.new_turn import TurnMaker, send
from everwarm.chat.session import Choices
from everwarm.chat.session_store import SessionStore
from everwarm.chat.session_turns import SessionTurns
from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.history.database import Database
from everwarm.job import Ended, EngineHealth, Job, Leased, ModelInfo, Sink, Token
from everwarm.server.turns import Turns


class WritesOn:
    """An engine that says `n` tokens at once, and ends a job only where it is told to."""

    def __init__(self, codec: Codec, n: int) -> None:
        self.ids = codec.encode(" word" * n)
        self.model = ModelInfo("m", 4096, 50_000, 0, 0, "none")
        self.sinks: dict[str, Sink] = {}

    def submit(self, job: Job, sink: Sink) -> None:
        sink(Leased(0, len(job.tokens), "nothing", 0.0, 0.0))
        self.sinks[job.id] = sink
        for i in self.ids:
            sink(Token(i))

    def health(self) -> EngineHealth:
        return EngineHealth()

    def cancel(self, job_id: str) -> None:
        sink = self.sinks.pop(job_id, None)
        if sink:
            sink(Ended("cancelled", 1, len(self.ids), 0.0, 0.0, 0.0))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "history.db")
    yield made
    made.close()


def says(text: str) -> TurnMaker:
    return partial(send, text=text, parent=None)


Talk = Callable[[SessionTurns, str], Awaitable[None]]


@pytest.fixture
def talking(codec: Callable[..., Codec], db: Database) -> Callable[[Talk, int], None]:
    made = codec(DROPS_REASONING)

    def run(talk: Talk, n: int) -> None:
        engine: Any = WritesOn(made, n)

        async def inside() -> None:
            talking = SessionTurns(SessionStore(db), Turns(engine, made, Settings()), "")
            session = await talking.store.create("", Choices())
            await asyncio.wait_for(talk(talking, session.id), 20)
            assert not talking.running and not talking.turns.running and not engine.sinks

        asyncio.run(inside())

    return run


def test_a_turn_can_be_stopped_at_any_moment(talking: Callable[[Talk, int], None]) -> None:
    async def talk(talking: SessionTurns, session: str) -> None:
        for moment in range(60):
            sent = asyncio.create_task(talking.start(session, says(f"Question {moment}")))
            for _ in range(moment):
                await asyncio.sleep(0)
            if not talking.running:
                assert moment == 0
                sent.cancel()
                with suppress(asyncio.CancelledError):
                    await sent
                continue
            assert await talking.stop(session)
            await sent
            stored, tree = await talking.store.get(session)
            last = tree.path(stored.head)[-1]
            assert last.message.role == "user" or last.finish == "cancelled"

    talking(talk, 3)


def test_a_turn_is_stopped_while_its_message_is_being_written(
    talking: Callable[[Talk, int], None], db: Database
) -> None:
    async def talk(talking: SessionTurns, session: str) -> None:
        written = threading.Event()
        db.submit(lambda _: written.wait(10) and None)
        sent = asyncio.create_task(talking.start(session, says("Go on and on.")))
        while not talking.running:
            await asyncio.sleep(0)
        stopped = asyncio.create_task(talking.stop(session))
        await asyncio.sleep(0)
        written.set()
        assert await stopped
        running = await sent
        frames = b"".join([frame async for frame in running.follow(10)])
        assert b"event: done" in frames and b"event: text" not in frames

    talking(talk, 3)


def test_others_are_heard_while_many_events_wait(talking: Callable[[Talk, int], None]) -> None:
    async def talk(talking: SessionTurns, session: str) -> None:
        running = await talking.start(session, says("Go on and on."))
        heard = 0
        while running.turn.completion < 300:
            await asyncio.sleep(0)
            heard += running.turn.completion > 0
        await talking.stop(session)
        assert heard > 100

    talking(talk, 300)
