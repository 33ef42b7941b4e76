"""The tables of `history.db`, and how a file of an earlier version is brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from everwarm.errors import ConfigError

MIGRATIONS: Final = (
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
    """
    CREATE TABLE reminders (          -- the ends of users' messages as they were read
        n INTEGER PRIMARY KEY,
        model TEXT NOT NULL,          -- as in `replies`
        thread TEXT NOT NULL,         -- as in `replies`
        found_by TEXT NOT NULL,       -- the thread without reminders in its first message
        bare TEXT NOT NULL,           -- id of the history that ends with the bare message
        text BLOB NOT NULL,           -- UTF-8, where a client cut one, with half a surrogate pair
        UNIQUE (model, bare, text)
    );
    CREATE INDEX reminders_found ON reminders (model, found_by, n);
    CREATE INDEX reminders_of_thread ON reminders (thread);
    """,
)
"""Each script brings the file from the version that is its index to the next."""


def check_version(db: sqlite3.Connection, path: Path) -> int:
    """The file's version. Raises ConfigError where a newer everwarm wrote it."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise ConfigError(f"{path} was written by a newer everwarm. Update this one.")
    return int(version)


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to date. Raises ConfigError where a newer everwarm wrote it."""
    version = check_version(db, path)
    for n, script in enumerate(MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN; {script} PRAGMA user_version = {n}; COMMIT;")
