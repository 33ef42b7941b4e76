"""Messages with reminders outlive the process, so that a restarted server keeps them too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_templates import DROPS_REASONING
from talk import Talk, drops_reasoning, said, system, user

from everwarm.codec import Codec
from everwarm.history import reply_table as table
from everwarm.history.database import Database
from everwarm.history.reply_table import ReplyTable
from everwarm.messages import MessageId
from everwarm.prompt.render import Renderer
from everwarm.replies import Reminder
from everwarm.tokens import Prompt

PLAN = "<system-reminder>\nOnly plan.\n</system-reminder>"


@pytest.fixture
def databases() -> Iterator[list[Database]]:
    made: list[Database] = []
    yield made
    for db in made:
        db.close()


@pytest.fixture
def started(
    codec: Callable[..., Codec], tmp_path: Path, databases: list[Database]
) -> Callable[[Talk | None], Talk]:
    """A conversation with a renderer of its own over the one file: as behind a restart."""
    made = codec(DROPS_REASONING)

    def start(before: Talk | None = None) -> Talk:
        for db in databases:
            db.close()
        databases.append(Database(tmp_path / "history.db"))
        store = ReplyTable(databases[-1], made.fingerprint)
        talk = Talk(Renderer(made, store=store, sticky_reminders=True), made)
        if before is not None:
            talk.messages, talk.read = list(before.messages), before.read
        return talk

    return start


def turn(talk: Talk, text: str, answer: str) -> None:
    """A message with a reminder, which is taken out behind the answer."""
    talk.messages.append(user(text + PLAN))
    prompt = talk.ask(drops_reasoning)
    talk.answer(prompt, talk.codec.encode(f"hm\n</think>\n\n{answer}"), said(answer))
    talk.messages[-2] = user(text)


def goes_on(talk: Talk, n: int) -> Prompt:
    prompt = talk.ask(drops_reasoning)
    assert list(prompt.tokens[: len(talk.read)]) == list(talk.read)
    assert prompt.reminded == n
    return prompt


@pytest.mark.parametrize("text", ["go", "half a \ud83d pair", "", "<system-reminder>"])
def test_a_restarted_server_keeps_what_was_read(started: Callable[..., Talk], text: str) -> None:
    talk = started()
    talk.messages.append(system("Be brief."))
    turn(talk, "hello " + text, "hi")
    turn(talk, text, "fine")
    for n in (2, 3):
        talk = started(talk)
        talk.messages.append(user(f"and {n}?"))
        prompt = goes_on(talk, n)
        talk.answer(prompt, talk.codec.encode("hm\n</think>\n\nwell"), said("well"))
        turn(talk, "more", "much")


def test_another_key_finds_nothing(started: Callable[..., Talk]) -> None:
    talk = started()
    turn(talk, "go", "fine")
    talk = started(talk)
    talk.messages.append(user("more"))
    prompt = talk.ask(drops_reasoning, namespace="another")
    assert prompt.reminded == 0
    assert "Only plan" not in talk.codec.decode(prompt.tokens)
    goes_on(talk, 1)


def test_a_message_that_was_never_answered_is_not_kept(
    started: Callable[..., Talk], databases: list[Database]
) -> None:
    talk = started()
    talk.messages.append(user("go" + PLAN))
    talk.ask()
    databases[-1].call(lambda db: None).result()
    assert rows(databases[-1]) == 0


def test_without_the_setting_nothing_is_kept(
    codec: Callable[..., Codec], tmp_path: Path, databases: list[Database]
) -> None:
    made = codec(DROPS_REASONING)
    databases.append(Database(tmp_path / "history.db"))
    talk = Talk(Renderer(made, store=ReplyTable(databases[-1], made.fingerprint)), made)
    turn(talk, "go", "fine")
    assert rows(databases[-1]) == 0


def rows(db: Database) -> int:
    (n,) = db.call(lambda c: c.execute("SELECT count(*) FROM reminders").fetchone()).result()
    return int(n)


def reminder(thread: str, n: int) -> Reminder:
    return Reminder(
        thread=MessageId(thread),
        found_by=MessageId("found"),
        bare=MessageId(f"bare {n}"),
        text=f"word {n}{PLAN}",
    )


def test_one_message_is_kept_once_and_comes_back_in_order(tmp_path: Path) -> None:
    db = Database(tmp_path / "history.db")
    store, other = ReplyTable(db, "m"), ReplyTable(db, "another model")
    for n in (2, 1, 2):
        store.remind(reminder("t", n))
    assert rows(db) == 2
    assert store.reminders(MessageId("found")) == [reminder("t", 2), reminder("t", 1)]
    assert store.reminders(MessageId("t")) == other.reminders(MessageId("found")) == []
    db.close()
    assert store.reminders(MessageId("found")) == [], "a file that fails costs no request"


def test_a_deleted_session_takes_them_along(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    db = Database(path)
    store = ReplyTable(db, "m")
    store.remind(reminder("gone", 1))
    store.remind(reminder("stays", 2))

    def delete(c: sqlite3.Connection) -> None:
        c.execute(
            """INSERT INTO sessions (id, title, created, updated, pinned, origin, caller, name,
                choices, branch) VALUES ('s', '', 0, 0, 0, 'api', '', '', '{}', 'main')"""
        )
        c.execute("INSERT INTO turns VALUES ('t', 1, 0, '{}', 'gone', NULL)")
        assert table.forget(c, "s") == ["gone"]

    db.call(delete).result()
    assert [r.thread for r in store.reminders(MessageId("found"))] == ["stays"]
    db.scrub().result()
    db.close()
    assert b"word 1" not in path.read_bytes()
    assert b"word 2" in path.read_bytes()
