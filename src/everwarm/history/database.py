"""`history.db`: one file, one writer thread.

Writes arrive as functions and are done in order, each in a transaction of its own; readers have
connections of their own and, in WAL mode, never wait. A write that was done survives the end of
this process, and the loss of power (synchronous = FULL).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from everwarm.errors import ConfigError

log = logging.getLogger("everwarm.history")

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
)
"""Each script brings the file from the version that is its index to the next."""


class Database:
    """The open file. `submit` may be called from any thread; `close` once, at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._writes = self.connect()
            _migrate(self._writes, path)
        except sqlite3.Error as e:
            raise ConfigError(f"{path} cannot be used: {e}.") from e
        self._work: SimpleQueue[Callable[[sqlite3.Connection], None] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="everwarm-history", daemon=True)
        self._thread.start()

    def connect(self) -> sqlite3.Connection:
        """A connection for one thread at a time."""
        made = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("PRAGMA synchronous = FULL")
        return made

    def submit(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """Do this on the writer thread, in its own transaction; after `close`, nothing."""
        if not self._closed:
            self._work.put(write)

    def close(self) -> None:
        """Finish what was submitted."""
        self._closed = True
        self._work.put(None)
        self._thread.join()
        self._writes.close()

    def _run(self) -> None:
        while (write := self._work.get()) is not None:
            try:
                with self._writes:
                    write(self._writes)
            except sqlite3.Error as e:
                log.error("history_write_failed=%r path=%s", str(e), self._path)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ConfigError(f"{path} was written by a newer everwarm. Update this one.")
    for n, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {n}; COMMIT;")
