"""`history.db`: one file, one writer thread.

Writes arrive as functions and are done in order, each in a transaction of its own; readers have
connections of their own and, in WAL mode, never wait. A write that was done survives the end of
this process, and the loss of power (synchronous = FULL). What is deleted is overwritten.
The file is opened with its first use.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from everwarm.errors import ConfigError, EngineError, EverwarmError

log = logging.getLogger("everwarm.history")
T = TypeVar("T")
Connection = sqlite3.Connection
"""What functions that read or write are given."""

MIGRATIONS = (
    """
    CREATE TABLE tools (id TEXT PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE replies (
        n INTEGER PRIMARY KEY,
        model TEXT NOT NULL,      -- fingerprint of tokenizer and template
        caller TEXT NOT NULL,     -- hash of the API key; empty without one
        thread TEXT NOT NULL,     -- the conversation: caller and first user message
        reply TEXT NOT NULL,      -- id of the history that ends with this reply
        base TEXT,                -- the reply that its tokens build on
        tokens BLOB NOT NULL,     -- int32, from the base's end to this reply's end
        said INTEGER NOT NULL,    -- how many of them, at the end, are the reply
        marks TEXT NOT NULL,
        content BLOB NOT NULL,
        before BLOB NOT NULL,
        position INTEGER NOT NULL,
        text TEXT NOT NULL,
        calls TEXT NOT NULL,
        args TEXT NOT NULL,
        began REAL NOT NULL,      -- the time that the conversation's template sees
        kept REAL NOT NULL,
        tools TEXT REFERENCES tools (id),
        UNIQUE (model, reply)
    );
    CREATE INDEX replies_of_thread ON replies (model, thread, n);
    CREATE INDEX replies_by_calls ON replies (model, caller, calls) WHERE calls != '';
    """,
    """
    CREATE TABLE sessions (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        title TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        pinned INTEGER NOT NULL,
        origin TEXT NOT NULL,
        client TEXT,
        caller TEXT NOT NULL,     -- of one that came through a client's API; else empty
        name TEXT NOT NULL,       -- what the client calls it
        choices TEXT NOT NULL,
        branch TEXT NOT NULL
    );
    CREATE INDEX sessions_in_order ON sessions (updated);
    CREATE INDEX sessions_by_name ON sessions (caller, name) WHERE name != '';
    CREATE TABLE branches (
        n INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        name TEXT NOT NULL,
        head TEXT,                -- a message's id
        UNIQUE (session, name)
    );
    CREATE TABLE messages (
        n INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        id TEXT NOT NULL,
        parent TEXT,
        role TEXT NOT NULL,
        parts TEXT NOT NULL,
        call TEXT,                -- the tool call that it answers
        created REAL NOT NULL,
        turn TEXT,
        finish TEXT,
        covers TEXT,              -- of a summary: the end of what it stands for
        UNIQUE (session, id)
    );
    CREATE TABLE turns (
        id TEXT PRIMARY KEY,
        session INTEGER NOT NULL,
        at REAL NOT NULL,
        record TEXT NOT NULL,
        thread TEXT NOT NULL,     -- as in `replies`
        reply TEXT                -- as in `replies`
    );
    CREATE INDEX turns_of_session ON turns (session);
    CREATE INDEX turns_of_thread ON turns (thread);
    CREATE TABLE paths (          -- the tokens that were read or written: what to delete
        n INTEGER PRIMARY KEY,
        session INTEGER NOT NULL,
        caller TEXT NOT NULL,
        base INTEGER,             -- the path whose first tokens these ones follow
        start INTEGER NOT NULL,
        tokens BLOB NOT NULL
    );
    CREATE INDEX paths_of_session ON paths (session);
    CREATE VIRTUAL TABLE found USING fts5 (text, tokenize = "unicode61 remove_diacritics 2");
    """,
    """
    ALTER TABLE paths ADD COLUMN "end" INTEGER;  -- how many tokens the whole path has
    ALTER TABLE paths ADD COLUMN digest BLOB;    -- of all of them
    CREATE INDEX paths_by_end ON paths (session, caller, "end", digest);
    """,
    """
    ALTER TABLE replies ADD COLUMN place TEXT;      -- what all samples of it have in common
    ALTER TABLE replies ADD COLUMN reasoning BLOB;  -- hash of its message's reasoning
    """,
)
"""Each script brings the file from the version that is its index to the next."""


class Database:
    """The file. `submit` and `call` may be called from any thread; `close` once, at the end.

    Where it cannot be used, whoever opens it first gets ConfigError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opening = threading.Lock()
        self._writes: sqlite3.Connection | None = None
        self._work: SimpleQueue[Callable[[sqlite3.Connection], None] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="everwarm-history", daemon=True)

    def open(self) -> Database:
        """Make the file and bring it up to date, where that was not done yet."""
        with self._opening:
            if self._writes is None:
                try:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
                    writes = self._connect()
                    _migrate(writes, self._path)
                except (OSError, sqlite3.Error) as e:
                    raise ConfigError(f"{self._path} cannot be used: {e}.") from e
                self._writes = writes
                self._thread.start()
        return self

    @property
    def is_open(self) -> bool:
        return self._writes is not None

    def connect(self) -> sqlite3.Connection:
        """A connection for one thread at a time."""
        self.open()
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        made = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = FULL")
        made.execute("PRAGMA secure_delete = ON")
        return made

    def submit(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """Do this on the writer thread, in its own transaction; after `close`, nothing."""
        if not self._closed:
            self.open()
            self._work.put(write)

    def call(self, write: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """As `submit`; the result when it is durable. What it raises undoes the transaction."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # who no longer waits does not undo it

        def work(db: sqlite3.Connection) -> None:
            try:
                with db:
                    result = write(db)
            except EverwarmError as e:
                done.set_exception(e)
            except sqlite3.Error as e:
                done.set_exception(self._failed(e))
            else:
                done.set_result(result)
            finally:
                if not done.done():
                    done.set_exception(EngineError("history.db cannot be used now; see the log."))

        if self._closed:
            done.set_exception(EngineError("The server is stopping."))
        else:
            self.submit(work)
        return done

    def read(self, connection: Connection, fn: Callable[[Connection], T]) -> T:
        """Ask something on the caller's connection. Raises EngineError where the file fails."""
        try:
            return fn(connection)
        except sqlite3.Error as e:
            raise self._failed(e) from e

    def _failed(self, error: sqlite3.Error) -> EngineError:
        log.error("history_failed=%r path=%s", str(error), self._path)
        return EngineError(f"history.db cannot be used now: {error}.")

    def scrub(self) -> Future[None]:
        """Take what was deleted out of the write-ahead log too. On the writer thread."""
        return self.call(_scrub)

    def close(self) -> None:
        """Finish what was submitted."""
        self._closed = True
        if self._writes is None:
            return
        self._work.put(None)
        self._thread.join()
        self._writes.close()

    def _run(self) -> None:
        assert self._writes is not None
        while (write := self._work.get()) is not None:
            try:
                with self._writes:
                    write(self._writes)
            except sqlite3.Error as e:
                log.error("history_write_failed=%r path=%s", str(e), self._path)
            except Exception:  # a fault of ours costs one write, not all that follow
                log.exception("history_write_failed path=%s", self._path)


def _scrub(db: sqlite3.Connection) -> None:
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ConfigError(f"{path} was written by a newer everwarm. Update this one.")
    for n, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {n}; COMMIT;")
