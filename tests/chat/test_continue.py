"""A reply that was cut is written on, from exactly the tokens that were said."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zoo
from engines import engines_of
from held import Client, done, holding
from serving import sse

from everwarm.chat.new_turn import go_on, send
from everwarm.chat.session import Choices, Entry
from everwarm.chat.session_json import request_of
from everwarm.chat.session_store import SessionStore
from everwarm.chat.session_turns import SessionTurns
from everwarm.config import Settings
from everwarm.engine.thread import EngineThread
from everwarm.errors import EngineError
from everwarm.history.database import Database
from everwarm.job import Failed, Job, Output, Sink, Token
from everwarm.messages import Message, Text
from everwarm.server.turn import Turn
from everwarm.server.turns import Turns
from everwarm.tokens import tokens_of

FAMILIES = ["llama", "qwen3_5"]
LONG = "Tell me of lakes. " * 30
MOST_READ = 10 + 8
"""Reply and scaffold: layers that cannot be cut stand behind the reply's last token, not before."""


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: Any, tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return zoo.save(request.param, tmp_path_factory.mktemp("continued") / "model", smollm2)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[EngineThread]:
    made = EngineThread.start(str(model), Settings(disk=False, prefill_step=64))
    yield made
    made.stop()


async def took(talking: SessionTurns, session: str, make: Any) -> list[Entry]:
    """The present branch behind one turn."""
    live = await talking.start(session, make)
    await asyncio.wait_for(live.over.wait(), 60)
    stored, tree = await talking.store.get(session)
    return tree.path(stored.head)


# --- over HTTP ---


def whole(client: Client, text: str, n: int) -> str:
    """What the model says in one go."""
    return str(client.say(client.new(max_tokens=n), text)["message"]["text"])


def test_a_reply_at_its_limit_goes_on_where_it_stopped(model: Path, tmp_path: Path) -> None:
    with holding(model, tmp_path, "--no-disk") as client:
        session = client.new(max_tokens=10)
        first = client.say(session, "Tell me of lakes.")["message"]
        assert first["finish"] == "length"
        events = client.stream(f"/api/sessions/{session}/continue")
        second = done(events)["message"]
        assert second["text"] == whole(client, "Tell me of lakes.", 20)
        assert "".join(d["text"] for name, d in events if name == "text") == second["text"]
        held = client.get(f"/api/sessions/{session}")
        assert [m["id"] for m in held["messages"]] == [first["parent"], second["id"]]
        assert second["siblings"] == [second["id"]], "it takes the place of its beginning"
        turn = second["turn"]
        assert turn["completion_tokens"] == 10 and turn["prefilled_tokens"] <= MOST_READ
        assert held["context"]["used"] == turn["prompt_tokens"] + 10
        after = client.say(session, "And of rivers?")["message"]["turn"]
        assert after["prefilled_tokens"] <= after["new_tokens"] + 8


def test_a_reply_goes_on_after_a_restart(model: Path, tmp_path: Path) -> None:
    with holding(model, tmp_path) as client:
        session = client.new(max_tokens=10)
        client.say(session, LONG)
        client.stream(f"/api/sessions/{session}/continue")
    with holding(model, tmp_path) as client:
        said = done(client.stream(f"/api/sessions/{session}/continue"))["message"]
        turn = said["turn"]
        assert turn["cached_from"] == "disk" and turn["prefilled_tokens"] <= MOST_READ + 10
        assert said["text"] == whole(client, LONG, 30)


def test_what_others_stand_on_stays(model: Path, tmp_path: Path) -> None:
    with holding(model, tmp_path, "--no-disk") as client:
        session = client.new()
        first = client.say(session, "Tell me of lakes.")["message"]
        client.post(f"/api/sessions/{session}/branches", {"at": first["id"], "name": "short"})
        client.ask("PATCH", f"/api/sessions/{session}", {"branch": "main"})
        second = done(client.stream(f"/api/sessions/{session}/continue"))["message"]
        assert second["siblings"] == [first["id"], second["id"]]
        short = client.get(f"/api/sessions/{session}?branch=short")
        assert short["messages"][-1]["id"] == first["id"]


def test_only_a_cut_reply_of_this_server_can_go_on(model: Path, tmp_path: Path) -> None:
    with holding(model, tmp_path, "--no-disk") as client:
        session = client.new()
        status, said = client.ask("POST", f"/api/sessions/{session}/continue", {})
        assert (status, said["error"]["code"]) == (400, "nothing_to_continue")
        user = client.say(session, "Tell me of lakes.")["message"]["parent"]
        body = {"message": user}
        status, said = client.ask("POST", f"/api/sessions/{session}/continue", body)
        assert (status, said["error"]["code"]) == (400, "nothing_to_continue")
        known = client.get(f"/api/sessions/{session}/export")
        other = client.post("/api/sessions/import", known | {"title": "Copy"})["id"]
        before = client.get(f"/api/sessions/{other}")["messages"]
        name, said = client.stream(f"/api/sessions/{other}/continue")[-1]
        if name == "error":  # its tokens are not this session's: nothing has changed
            assert said["error"]["code"] == "reply_not_remembered"
            assert client.get(f"/api/sessions/{other}")["messages"] == before


class Dictates:
    """An engine whose replies, one after the other, are the pieces of one text."""

    def __init__(self, engine: EngineThread, text: str) -> None:
        self.engine, self.ids = engine, tokens_of(engine.codec.encode(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def submit(self, job: Job, sink: Sink) -> None:
        self.engine.submit(replace(job, forced=self.ids), sink)
        self.ids = self.ids[job.max_tokens :]


def test_half_a_character_becomes_the_whole_one(engine: EngineThread, tmp_path: Path) -> None:
    db = Database(tmp_path / "history.db")
    llamas = "\N{LLAMA}" * 4

    async def talk(n: int) -> tuple[str, str]:
        dictates: Any = Dictates(engine, llamas)
        talking = SessionTurns(SessionStore(db), Turns(dictates, engine.codec, Settings()), "")
        session = (await talking.store.create("", Choices(max_tokens=n))).id
        ask = partial(send, text="Draw.", parent=None)
        cut = (await took(talking, session, ask))[-1].message.text
        live = await talking.start(session, partial(go_on, message=None))
        events = sse(b"".join([frames async for frames in live.follow(60)]))
        done(events)
        return cut, "".join(d["text"] for name, d in events if name == "text")

    replies = [asyncio.run(talk(n)) for n in range(1, 6)]
    db.close()
    assert any("\ufffd" in cut for cut, _ in replies), "none was cut within a character"
    for _, said in replies:
        assert llamas.startswith(said.rstrip("\ufffd"))


# --- the engine ends in the middle ---


def killed(client: Client, path: str, body: object = None, behind: int = 3000) -> list[Any]:
    """The events of a turn whose engine is killed when so many bytes of them have come."""
    raw = json.dumps(body or {}).encode()
    request = urllib.request.Request(client.url + path, raw, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        came = answer.read(behind)
        (engine,) = engines_of(client.pid)
        os.kill(engine, signal.SIGKILL)
        return sse(came + answer.read())


def test_a_reply_of_a_killed_engine_goes_on_over_http(model: Path, tmp_path: Path) -> None:
    with holding(model, tmp_path) as client:
        session = client.new(max_tokens=1500)
        path, before = f"/api/sessions/{session}", ""
        for action, body in (("send", {"text": LONG}), ("continue", {})):
            name, said = killed(client, f"{path}/{action}", body)[-1]
            assert name == "error" and said["error"]["code"] == "engine_died"
            user, last = client.get(path)["messages"]
            assert (last["parent"], last["finish"]) == (user["id"], "engine_died")
            assert last["text"].startswith(before) and last["text"] != before
            before = last["text"]
        client.ask("PATCH", path, {"settings": {"temperature": 0.0, "max_tokens": 10}})
        last = done(client.stream(f"{path}/continue"))["message"]
        n = last["turn"]["prompt_tokens"] + 10 - len_of_prompt(client)
        assert last["text"] == whole(client, LONG, n)


def len_of_prompt(client: Client) -> int:
    """The tokens before a reply."""
    copy = client.new(max_tokens=1)
    return int(client.say(copy, LONG)["message"]["turn"]["prompt_tokens"])


def test_a_clients_reply_of_a_killed_engine_is_found_again(model: Path, tmp_path: Path) -> None:
    with holding(model, tmp_path) as client:
        says = [{"role": "user", "content": LONG}]
        body = {"messages": says, "temperature": 0, "max_tokens": 1500, "stream": True}
        events = killed(client, "/v1/chat/completions", body, 12_000)
        told = [d for _, d in events if isinstance(d, dict) and d.get("choices")]
        text = "".join(d["choices"][0]["delta"].get("content") or "" for d in told)
        assert text
        says += [{"role": "assistant", "content": text}, {"role": "user", "content": "Go on."}]
        status, _ = client.ask(
            "POST",
            "/v1/chat/completions",
            body | {"messages": says, "max_tokens": 2, "stream": False},
        )
        assert status == 200
        again, cut = client.get("/api/turns?limit=2")["turns"]
        assert cut["finish"] == "engine_died"
        assert again["new_tokens"] < 40, "the reply is known, token by token"
        assert again["prompt_tokens"] > cut["prompt_tokens"] + cut["completion_tokens"]


class Dies:
    """An engine that ends behind `alive` tokens of a reply, and is there again for the next."""

    def __init__(self, engine: EngineThread) -> None:
        self.engine, self.alive = engine, 1 << 30

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def submit(self, job: Job, sink: Sink) -> None:
        left, is_dead = [self.alive], [False]

        def pass_on(output: Output) -> None:
            if is_dead[0]:
                return
            left[0] -= isinstance(output, Token)
            sink(output)
            if not left[0]:
                is_dead[0] = True
                self.engine.cancel(job.id)
                sink(Failed(EngineError("The engine ended (signal 9). Ask again.")))

        self.engine.submit(job, pass_on)


def test_a_reply_that_the_engines_end_cut_off_stays_and_goes_on(
    engine: EngineThread, tmp_path: Path
) -> None:
    dies: Any = Dies(engine)
    db = Database(tmp_path / "history.db")

    async def talk() -> None:
        turns = Turns(dies, engine.codec, Settings())
        talking = SessionTurns(SessionStore(db), turns, "")
        ask = partial(send, text="Tell me of lakes.", parent=None)
        choices = Choices(temperature=0.0, max_tokens=40)
        cold = await took(talking, (await talking.store.create("", choices)).id, ask)
        session = (await talking.store.create("", choices)).id
        for alive in (9, 7):
            dies.alive = alive
            path = await took(talking, session, ask)
            ask = partial(go_on, message=None)
            assert len(path) == 2 and path[-1].finish == "error"
            assert path[-1].turn and path[-1].turn["error"].startswith("The engine ended")
            assert cold[-1].message.text.startswith(path[-1].message.text) and path[-1].message.text
        dies.alive = 40 - 9 - 7
        path = await took(talking, session, ask)
        assert path[-1].message == cold[-1].message
        assert path[-1].turn and path[-1].turn["prefilled_tokens"] <= MOST_READ + 10

    asyncio.run(talk())
    db.close()


def test_an_end_before_the_first_new_token_changes_nothing(
    engine: EngineThread, tmp_path: Path
) -> None:
    dies: Any = Dies(engine)
    db = Database(tmp_path / "history.db")

    async def talk() -> None:
        turns = Turns(dies, engine.codec, Settings())
        talking = SessionTurns(SessionStore(db), turns, "")
        session = (await talking.store.create("", Choices(temperature=0.0, max_tokens=5))).id
        before = await took(talking, session, partial(send, text="Lakes.", parent=None))
        turns.engine = Gone(dies)
        after = await took(talking, session, partial(go_on, message=None))
        assert [e.id for e in after] == [e.id for e in before]

    asyncio.run(talk())
    db.close()


class Gone(Dies):
    """An engine that fails each job before it says anything."""

    def submit(self, job: Job, sink: Sink) -> None:
        sink(Failed(EngineError("The engine ended (signal 9). Ask again.")))


def test_a_clients_cut_reply_is_read_again_word_for_word(
    engine: EngineThread, tmp_path: Path
) -> None:
    dies: Any = Dies(engine)
    dies.alive = 12
    asked = (Message("user", (Text("Tell me of lakes and of the rivers between them."),)),)

    async def talk() -> None:
        turns = Turns(dies, engine.codec, Settings())
        request = request_of(Choices(temperature=0.0, max_tokens=40), asked, "")
        cut = Turn("cut")
        with pytest.raises(EngineError):
            async for _ in turns.answer(request, cut):
                pass
        assert cut.record and cut.record.finish == "error" and cut.reply.text
        more = Message("user", (Text("Go on."),))
        again, after = Turn("again"), (*asked, cut.reply, more)
        request = request_of(Choices(temperature=0.0, max_tokens=4), after, "")
        async for _ in turns.answer(request, again):
            pass
        assert again.tokens[: len(cut.tokens)] == cut.tokens
        assert again.record and again.record.prefilled_tokens <= again.record.new_tokens + 8

    asyncio.run(talk())
