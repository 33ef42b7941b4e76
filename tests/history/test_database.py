"""The one writer of history.db outlives what goes wrong in a write."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from everwarm.errors import ConfigError, EngineError
from everwarm.history.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "history.db"


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    made = Database(path).open()
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


# --- a file that is taken away while it is open ---


def write(db: Database, text: str) -> None:
    db.call(
        lambda raw: raw.execute("INSERT INTO tools VALUES (?, ?)", (text, text)).rowcount
    ).result(10)


def texts(path: Path) -> list[str]:
    """What a file holds, read as by a server that starts."""
    db = Database(path)
    reader = db.reader()
    rows = reader.ask(lambda raw: raw.execute("SELECT id FROM tools ORDER BY rowid").fetchall())
    assert reader.ask(lambda raw: raw.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    db.close()
    return [text for (text,) in rows]


@pytest.mark.parametrize("gone", [[""], ["", "-wal", "-shm"], ["-wal"], ["directory"]])
def test_a_file_that_is_taken_away_is_put_back_with_all_that_was_written(
    db: Database, path: Path, gone: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    reader = db.reader()
    write(db, "before")
    assert reader.ask(lambda raw: raw.execute("SELECT count(*) FROM tools").fetchone()) == (1,)
    for end in gone:
        if end == "directory":
            shutil.rmtree(path.parent)
        else:
            Path(f"{path}{end}").unlink()
    write(db, "after")
    assert reader.ask(lambda raw: raw.execute("SELECT count(*) FROM tools").fetchone()) == (2,)
    assert path.stat().st_mode & 0o777 == 0o600
    db.close()
    assert texts(path) == ["before", "after"]
    assert "put back" in caplog.text


def test_whoever_looks_has_it_put_back(db: Database, path: Path) -> None:
    write(db, "before")
    path.unlink()
    assert db.trouble() == ""
    db.close()
    assert texts(path) == ["before"]


def test_another_file_in_its_place_is_taken_up(db: Database, path: Path) -> None:
    write(db, "here")
    other = Database(path.with_name("other.db"))
    write(other, "restored")
    other.close()
    path.with_name("other.db").replace(path)
    write(db, "after")
    db.close()
    assert texts(path) == ["restored", "after"]


def test_where_it_cannot_be_put_back_nobody_is_told_that_it_was_kept(
    db: Database, path: Path
) -> None:
    write(db, "before")
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way")
    with pytest.raises(EngineError, match="taken away"):
        write(db, "refused")
    db.submit(lambda raw: raw.execute("INSERT INTO tools VALUES ('noted', '')") and None)
    with pytest.raises(EngineError):
        write(db, "refused")
    assert "taken away" in db.trouble()
    path.parent.unlink()
    write(db, "after")
    assert db.trouble() == ""
    db.close()
    assert texts(path) == ["before", "noted", "after"]


def test_a_damaged_file_is_refused_with_a_way_out_and_left_as_it_is(path: Path) -> None:
    db = Database(path)
    write(db, "before")
    db.close()
    raw = bytearray(path.read_bytes())
    raw[100:2000] = b"\xff" * 1900
    path.write_bytes(raw)
    Path(f"{path}-wal").write_bytes(b"a log")
    with pytest.raises(ConfigError) as refused:
        Database(path).open()
    assert str(path) in refused.value.message
    assert "Move it away" in refused.value.message and ".recover" in refused.value.message
    assert path.read_bytes() == raw
    assert Path(f"{path}-wal").read_bytes() == b"a log"


def test_no_connection_outlives_the_database(db: Database, path: Path) -> None:
    """The last one that closes takes the log with it."""
    readers = [db.reader(), db.reader()]
    for reader in readers:
        reader.ask(lambda raw: raw.execute("SELECT count(*) FROM tools").fetchone())
    assert Path(f"{path}-wal").exists()
    db.close()
    assert not Path(f"{path}-wal").exists()
    with pytest.raises(EngineError, match="stopping"):
        readers[0].ask(lambda raw: None)
