"""The one writer of history.db outlives what goes wrong in a write."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from everwarm.errors import EngineError
from everwarm.history.database import Database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "history.db").open()
    yield made
    made.close()


def n_tables(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'kept'").fetchone()[0])


def test_a_fault_costs_one_write(db: Database) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE kept (n)")
        raise KeyError("a mistake of ours")

    db.submit(broken)
    with pytest.raises(EngineError):
        db.call(broken).result(10)
    assert db.call(n_tables).result(10) == 0


def test_who_no_longer_waits_stops_neither_the_write_nor_the_writer(db: Database) -> None:
    held, done = threading.Event(), threading.Event()
    db.submit(lambda _: held.wait(10) and None)
    left = db.call(lambda _: done.set())
    assert not left.cancel()
    held.set()
    assert done.wait(10)
    assert db.call(n_tables).result(10) == 0
