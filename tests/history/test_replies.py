"""What was said outlives the process, in bounds, for the model that said it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_templates import DROPS_REASONING
from talk import TOOLS, Talk, drops_reasoning, look, result, said, strips_ids, user

from everwarm.codec import Codec
from everwarm.errors import ConfigError
from everwarm.history.database import Database
from everwarm.history.reply_table import ReplyTable
from everwarm.history.schema import MIGRATIONS
from everwarm.messages import MessageId
from everwarm.prompt.render import Renderer
from everwarm.replies import Kept, Reply
from everwarm.tokens import Mark, tokens_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "history.db"


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    made = Database(path).open()
    yield made
    made.close()


def think(talk: Talk, text: str, answer: str) -> None:
    talk.messages.append(user(text))
    prompt = talk.ask(drops_reasoning)
    # Not how the tokenizer would cut it.
    ids = [i for c in f"hm {answer}\n</think>\n\n{answer}" for i in talk.codec.encode(c)]
    talk.answer(prompt, ids, said(answer, thought=f"hm {answer}"))


@pytest.fixture
def databases() -> Iterator[list[Database]]:
    """Those that a test leaves open."""
    made: list[Database] = []
    yield made
    for db in made:
        db.close()


def restarted(talk: Talk, path: Path, databases: list[Database]) -> Talk:
    """The same conversation with a new renderer over the same file."""
    db = Database(path)
    databases.append(db)
    renderer = Renderer(talk.codec, store=ReplyTable(db, talk.codec.fingerprint))
    return Talk(renderer, talk.codec, talk.tools, list(talk.messages), talk.read)


def test_a_new_renderer_over_the_same_file_renders_the_same_tokens(
    codec: Callable[..., Codec], path: Path, databases: list[Database]
) -> None:
    made = codec(DROPS_REASONING)
    db = Database(path)
    talk = Talk(Renderer(made, store=ReplyTable(db, made.fingerprint)), made)
    think(talk, "first", "one")
    call = look("call_a1", at="x")
    talk.messages.append(user("look"))
    prompt = talk.ask(drops_reasoning)
    ids = made.encode('so\n</think>\n\n<tool_call>{"name":"look" }</tool_call>')
    talk.answer(prompt, ids, said("", call, thought="so"))
    talk.messages.append(result(call, "seen"))
    think(talk, "then", "two")
    talk.messages.append(user("more"))
    known = talk.ask(strips_ids)
    db.close()

    again = restarted(talk, path, databases)
    prompt = again.ask(strips_ids)
    assert prompt.tokens == known.tokens
    assert prompt.marks == known.marks
    assert again.reprocessed == 1.0
    again.messages[0] = user("first")  # and replies behind an edit are found as well
    again.messages.insert(0, said("", thought=""))
    assert "hm two" in made.decode(again.ask(drops_reasoning).tokens)


def test_a_restarted_server_knows_a_conversations_tools(
    codec: Callable[..., Codec], path: Path, databases: list[Database]
) -> None:
    made = codec(DROPS_REASONING)
    db = Database(path)
    talk = Talk(Renderer(made, store=ReplyTable(db, made.fingerprint)), made, TOOLS)
    think(talk, "first", "one")
    db.close()
    again = restarted(talk, path, databases)
    again.tools = ()
    again.messages.append(user("Summarise."))
    assert again.ask().kept_tools
    assert again.reprocessed == 1.0


def test_calls_are_found_after_a_restart_though_the_conversation_begins_anew(
    codec: Callable[..., Codec], path: Path, databases: list[Database]
) -> None:
    made = codec(DROPS_REASONING)
    db = Database(path)
    talk = Talk(Renderer(made, store=ReplyTable(db, made.fingerprint)), made)
    call = look("call_a1", at="x")
    talk.messages.append(user("look"))
    ids = made.encode('so\n</think>\n\n<tool_call>{"name":"look" }</tool_call>')
    talk.answer(talk.ask(), ids, said("", call, thought="so"))
    db.close()
    again = restarted(talk, path, databases)
    again.messages = [user("What was done so far?"), said("", call), result(call, "seen")]
    assert made.decode(ids) in made.decode(again.ask(drops_reasoning).tokens)
    other = again.ask(drops_reasoning, namespace="another key")
    assert made.decode(ids) not in made.decode(other.tokens)


def test_replies_of_an_earlier_version_are_found(
    codec: Callable[..., Codec], path: Path, databases: list[Database]
) -> None:
    """They know neither their reasoning nor what they have in common with other samples."""
    made = codec(DROPS_REASONING)
    db = Database(path)
    talk = Talk(Renderer(made, store=ReplyTable(db, made.fingerprint)), made)
    think(talk, "first", "one")
    db.close()
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("UPDATE replies SET reply = place")
        raw.execute("ALTER TABLE replies DROP COLUMN place")
        raw.execute("ALTER TABLE replies DROP COLUMN reasoning")
        raw.execute("DROP TABLE reminders")
        raw.execute("PRAGMA user_version = 3")
    raw.close()
    talk.messages.append(user("more"))
    for client in (drops_reasoning, lambda m: m):
        again = restarted(talk, path, databases)
        again.ask(client)
        assert again.reprocessed == 1.0


def kept(n: int, thread: str, base: str | None = None, size: int = 4) -> Kept:
    reply = Reply(tokens_of([n, n + 1]), b"c%d" % n, b"b", n, f"text {n}", "", {"x": True}, b"r")
    return Kept(
        namespace="key",
        thread=MessageId(thread),
        id=MessageId(f"{thread}{n}"),
        place=MessageId(f"{thread}{n} at"),
        base=MessageId(base) if base else None,
        tokens=tokens_of([*range(size - 2), n, n + 1]),
        marks=(Mark(1, "user"),),
        reply=reply,
        at=1.5,
        tools="[]",
    )


def test_what_is_kept_is_loaded_as_it_was(db: Database, path: Path) -> None:
    table = ReplyTable(db, "m")
    rows = [kept(1, "a"), kept(2, "a", "a1"), kept(3, "b")]
    for row in rows:
        table.keep(row)
    db.close()
    again = Database(path)
    assert ReplyTable(again, "m").load(MessageId("a")) == rows[:2]
    again.close()


def test_another_model_does_not_get_them_but_is_told_of_them(db: Database, path: Path) -> None:
    ReplyTable(db, "one").keep(kept(1, "a"))
    db.close()
    again = Database(path)
    other = ReplyTable(again, "another")
    assert other.load(MessageId("a")) == []
    assert other.others(MessageId("a")) == 1
    again.close()


def test_conversations_that_rested_longest_go_first_and_whole(db: Database, path: Path) -> None:
    table = ReplyTable(db, "m", limit_bytes=4 * 35)
    for row in (kept(1, "a", size=10), kept(2, "a", size=10), kept(3, "b", size=10)):
        table.keep(row)
    table.keep(kept(4, "c", size=10))
    db.close()
    again = Database(path)
    table = ReplyTable(again, "m")
    assert [len(table.load(MessageId(t))) for t in "abc"] == [0, 1, 1]
    again.close()


def test_a_file_of_a_newer_version_is_refused(db: Database, path: Path) -> None:
    db.close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    raw.close()
    with pytest.raises(ConfigError, match="newer everwarm"):
        Database(path).open()


def test_a_file_that_is_no_database_is_refused_by_name(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("no database " * 100)
    with pytest.raises(ConfigError, match=r"history\.db cannot be used.*Move it away.*\.recover"):
        Database(path).open()
    assert path.read_text() == "no database " * 100


def test_a_failed_write_does_not_end_the_writer(db: Database) -> None:
    db.submit(lambda raw: raw.execute("no sql") and None)  # type: ignore[func-returns-value]
    table = ReplyTable(db, "m")
    table.keep(kept(1, "a"))
    db.call(lambda _: None).result(10)
    assert len(table.load(MessageId("a"))) == 1
