"""Paths of a session: what is stored is what is new, and nothing stored is read to store more."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from everwarm.chat import path_table
from everwarm.chat import session_table as table
from everwarm.chat.session import Session
from everwarm.history.database import Database
from everwarm.history.schema import MIGRATIONS
from everwarm.tokens import Tokens, common_length, tokens_of

TURN = 400
ROWS = "SELECT coalesce(sum(length(tokens)) / 4, 0), count(*) FROM paths"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = Database(tmp_path / "history.db").open()
    connection = made.connect()
    for name in ("one", "two"):
        table.put(connection, Session(id=name, title="", created=0.0, updated=0.0))
    yield connection
    connection.close()
    made.close()


def talk(n_turns: int, other: int = 0) -> Tokens[int]:
    return tokens_of(range(other, other + n_turns * TURN))


def reads(db: sqlite3.Connection, tokens: Tokens[int], caller: str = "") -> bool:
    """Note a path; whether tokens of others were read for it."""
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    path_table.add(db, "one", caller, tokens)
    db.set_trace_callback(None)
    return any("tokens FROM paths" in statement for statement in asked)


def test_a_turn_stores_what_is_new_and_reads_no_tokens(db: sqlite3.Connection) -> None:
    assert not any(reads(db, talk(n)) for n in range(1, 250))
    assert not reads(db, talk(249))
    assert db.execute(ROWS).fetchone() == (249 * TURN, 249)
    assert path_table.of(db, "one") == [("", talk(249))]


def test_the_digests_are_found_without_the_rows(db: sqlite3.Connection) -> None:
    """A covering index: long blobs stand between a row's start and its last columns."""
    plan = db.execute(
        """EXPLAIN QUERY PLAN SELECT "end", digest, n FROM paths
            WHERE session = 1 AND caller = '' AND "end" <= 9 ORDER BY "end", digest"""
    ).fetchall()
    assert ["COVERING INDEX paths_by_end" in row[-1] for row in plan] == [True]


def test_two_replies_to_one_question_share_what_is_in_front(db: sqlite3.Connection) -> None:
    path_table.add(db, "one", "", talk(30))
    both = [talk(30) + tokens_of([n] * 10) for n in (1, 2)]
    assert not any(reads(db, path) for path in both)
    assert db.execute(ROWS).fetchone() == (30 * TURN + 20, 3)
    assert sorted(tokens for _, tokens in path_table.of(db, "one")) == both


def test_an_early_branch_of_a_long_path_shares_its_head(db: sqlite3.Connection) -> None:
    path_table.add(db, "one", "", talk(30))
    branch = talk(20) + tokens_of([7] * 10)
    assert reads(db, branch)
    assert db.execute(ROWS).fetchone() == (30 * TURN + 10, 2)
    grown = branch + tokens_of([8] * 10)
    assert not reads(db, grown)
    assert db.execute(ROWS).fetchone() == (30 * TURN + 20, 3)
    assert [tokens for _, tokens in path_table.of(db, "one")] == [talk(30), grown]


def test_callers_and_sessions_share_nothing(db: sqlite3.Connection) -> None:
    for caller in ("", "key"):
        path_table.add(db, "one", caller, talk(2))
    path_table.add(db, "two", "", talk(2))
    assert db.execute(ROWS).fetchone() == (3 * 2 * TURN, 3)
    assert path_table.elsewhere(db, "one", path_table.of(db, "one")) == [2 * TURN, 0]


class Counting:
    """A connection that counts the bytes of tokens that are read through it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db, self.nbytes = db, 0

    def execute(self, sql: str, values: Any = ()) -> Any:
        assert "tokens FROM paths" not in sql
        return self._db.execute(sql, values)

    @contextmanager
    def blobopen(self, *where: Any, readonly: bool) -> Iterator[Any]:
        with self._db.blobopen(*where, readonly=readonly) as blob:
            before = blob.tell()
            yield blob
            self.nbytes += blob.tell() - before


def test_a_deletion_reads_of_other_sessions_only_what_is_shared(db: sqlite3.Connection) -> None:
    n = 20
    for other in range(n):
        table.put(db, Session(id=f"other{other}", title="", created=0.0, updated=0.0))
        said = talk(1) + talk(100, other=1_000_000 * (other + 1))
        path_table.add(db, f"other{other}", "", said)
        path_table.add(db, f"other{other}", "", said + tokens_of([1] * 9999))
    for end in range(5):
        path_table.add(db, "one", "", talk(2) + tokens_of([end] * 3))
    own = path_table.of(db, "one")
    counting: Any = Counting(db)
    assert path_table.elsewhere(counting, "one", own) == [TURN] * 5
    assert counting.nbytes <= n * 4 * 3 * TURN


@pytest.mark.parametrize("seed", range(20))
def test_what_is_shared_is_what_comparing_all_would_say(db: sqlite3.Connection, seed: int) -> None:
    rng = random.Random(seed)
    said = [tokens_of()]
    for _ in range(40):
        path = rng.choice(said)
        part = tokens_of(rng.choice((1, 2)) for _ in range(rng.choice((1, 3, 70, 400))))
        said.append(path[: rng.randint(0, len(path))] + part)
        caller, session = rng.choice(("", "key")), rng.choice(("one", "two"))
        path_table.add(db, session, caller, said[-1])
    own, others = path_table.of(db, "one"), path_table.of(db, "two")
    expected = [
        max((common_length(t, tokens) for who, t in others if who == caller), default=0)
        for caller, tokens in own
    ]
    assert path_table.elsewhere(db, "one", own) == expected


def test_rows_of_an_older_file_are_built_on(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "history.db")
    for n, script in enumerate(MIGRATIONS[:2], 1):
        old.executescript(f"BEGIN; {script} PRAGMA user_version = {n}; COMMIT;")
    table.put(old, Session(id="one", title="", created=0.0, updated=0.0))
    row = (talk(30).tobytes(),)
    old.execute("INSERT INTO paths (session, caller, start, tokens) VALUES (1, '', 0, ?)", row)
    old.commit()
    old.close()
    made = Database(tmp_path / "history.db")
    now = made.connect()
    assert reads(now, talk(31))
    assert not reads(now, talk(32))
    assert now.execute(ROWS).fetchone() == (32 * TURN, 3)
    assert path_table.of(now, "one") == [("", talk(32))]
    now.close()
    made.close()
