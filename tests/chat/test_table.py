"""Sessions of any length are written and read as a whole, not message by message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from everwarm.chat import session_table as table
from everwarm.chat.session import Entry, Session, Tree, ids_of
from everwarm.history.database import Connection, Database
from everwarm.messages import Message, Reasoning, Text, ToolCall

N = 1000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "history.db")
    yield made
    made.close()


def chain(session_id: str, n: int = N) -> list[Entry]:
    """A conversation, one message behind the other."""
    said = [
        Message("user", (Text(f"question {i}"),))
        if i % 2 == 0
        else Message(
            "assistant", (Reasoning("hm"), Text(f"answer {i}"), ToolCall(f"c{i}", "f", "{}"))
        )
        for i in range(n)
    ]
    ids = ids_of(session_id, said)
    return [Entry(ids[i], ids[i - 1] if i else None, m, 1.0, n=i) for i, m in enumerate(said)]


def new(session_id: str = "s1") -> Session:
    return Session(id=session_id, title="t", created=1.0, updated=1.0)


def asked(raw: Connection, fn: object) -> list[str]:
    """The questions that a function asks the database."""
    said: list[str] = []
    raw.set_trace_callback(said.append)
    fn(raw)  # type: ignore[operator]
    raw.set_trace_callback(None)
    return [s for s in said if s.lstrip().upper().startswith("SELECT")]


def test_many_messages_cost_no_question_each(db: Database) -> None:
    entries = chain("s1")

    def work(raw: Connection) -> tuple[int, int, Tree]:
        table.put(raw, new())
        add = asked(raw, lambda raw: table.add(raw, "s1", entries))
        read = asked(raw, lambda raw: table.tree(raw, "s1"))
        return len(add), len(read), table.tree(raw, "s1")

    n_add, n_read, tree = db.call(work).result(30)
    # The text index asks its own tables now and then; FTS5 spells these in lower case too.
    assert n_add < N / 10 and n_read < 10
    assert [(e.id, e.parent, e.message) for e in tree] == [
        (e.id, e.parent, e.message) for e in entries
    ]


def test_a_message_that_is_there_keeps_its_row_and_gets_its_turn(db: Database) -> None:
    entries = chain("s1", 4)
    again = Message("assistant", (Reasoning("another thought"), *entries[3].message.parts[1:]))
    turn = {"id": "turn_1", "at": 1.0}

    def work(raw: Connection) -> Tree:
        table.put(raw, new())
        table.add(raw, "s1", entries)
        table.add_turn(raw, "s1", turn, None, None)
        told = Entry(entries[3].id, entries[3].parent, again, 2.0, turn, "stop")
        table.add(raw, "s1", [entries[1], told, entries[0]])
        return table.tree(raw, "s1")

    tree = db.call(work).result(30)
    assert [e.id for e in tree] == [e.id for e in entries]
    last = tree[entries[3].id]
    assert (last.message, last.turn, last.finish) == (again, turn, "stop")
    assert tree[entries[1].id].message == entries[1].message


def test_words_of_many_messages_are_found(db: Database) -> None:
    def work(raw: Connection) -> None:
        for session in ("s1", "s2"):
            table.put(raw, new(session))
            table.add(raw, session, chain(session, 10 if session == "s1" else 20))

    db.call(work).result(30)
    found = db.reader().ask(lambda raw: table.search(raw, "question 18", 10))
    assert [s.id for s, _ in found] == ["s2"]


@pytest.mark.parametrize("seed", range(10))
def test_any_text_can_be_searched_for(db: Database, seed: int) -> None:
    rng, reader = random.Random(seed), db.reader()
    for _ in range(100):
        text = "".join(
            rng.choice("\0\x01\"'*()-:^{}+ aé🙂ANDOR\n\\%") for _ in range(rng.randint(1, 8))
        )
        assert reader.ask(lambda raw, text=text: table.search(raw, text, 10)) == []
