"""`history.db`: one file, one writer thread.

Writes arrive as functions and run in order, each in a transaction of its own; readers have
connections of their own and, in WAL mode, never wait. A finished write survives the end of this
process and the loss of power (synchronous = FULL). Deleted data is overwritten.
The file is opened at its first use. If somebody removes it while it is open, the next write puts it
back; if another file is in its place, that one is opened.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

from everwarm.errors import ConfigError, EngineError, EverwarmError
from everwarm.history.file import (
    Identity,
    connect,
    identity,
    open_file,
    put_back,
    remove_log,
    stands,
    way_out,
)

log = logging.getLogger("everwarm.history")
T = TypeVar("T")
Connection = sqlite3.Connection
"""The argument of functions that read or write."""
_LOOK_S: Final = 5.0


class Database:
    """The file. Any thread may call `submit` and `call`; `close` is called once, at the end.

    Where the file cannot be used, whoever opens it first gets ConfigError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opening = threading.Lock()
        self._writes: Connection | None = None
        self._opened: Identity = ()
        self._trouble = ""
        self._readers: list[HistoryReader] = []
        self._work: SimpleQueue[Callable[[Connection], None] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="everwarm-history", daemon=True)

    def open(self) -> Database:
        """Create the file or bring it up to date, unless it is open."""
        with self._opening:
            if self._writes is None:
                self._writes = open_file(self._path)
                self._opened = identity(self._path)
                self._thread.start()
        return self

    @property
    def is_open(self) -> bool:
        return self._writes is not None

    @property
    def opened(self) -> Identity:
        """Which file is open. It changes where the file was put back, or another one opened."""
        return self._opened

    def reader(self) -> HistoryReader:
        """A reader for one thread at a time. It is closed with the database."""
        reader = HistoryReader(self)
        self._readers.append(reader)
        return reader

    def connect(self) -> Connection:
        """A new connection, which the caller closes."""
        self.open()
        if not stands(self._path, self._opened):
            self.call(_nothing).result()
        return connect(self._path)

    def trouble(self) -> str:
        """Why writes would be lost with this process; empty where they would not be.

        Looks at the file; where it is gone, it is put back after the present writes. Waits for
        that, but not for long.
        """
        if self.is_open and not self._closed and not stands(self._path, self._opened):
            wait([self.call(_nothing)], _LOOK_S)
        return self._trouble

    def submit(self, write: Callable[[Connection], None]) -> None:
        """Call `write` on the writer thread, in its own transaction; after `close`, do nothing."""
        if not self._closed:
            self.open()
            self._work.put(write)

    def call(self, write: Callable[[Connection], T]) -> Future[T]:
        """As `submit`; the result, once it is durable. An exception undoes the transaction."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # a caller that stops waiting must not undo it

        def work(db: Connection) -> None:
            try:
                if self._trouble:
                    raise EngineError(self._trouble)
                with db:
                    result = write(db)
            except EverwarmError as e:
                done.set_exception(e)
            except sqlite3.Error as e:
                done.set_exception(self.failed(e))
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

    def failed(self, error: sqlite3.Error) -> EngineError:
        """The error for the caller; it is logged."""
        log.error("history_failed=%r path=%s", str(error), self._path)
        return EngineError(f"history.db cannot be used now: {error}.{way_out(error, self._path)}")

    def scrub(self) -> Future[None]:
        """Remove what was deleted from the write-ahead log too. On the writer thread."""
        return self.call(_scrub)

    def close(self) -> None:
        """Finish what was submitted, and close all connections."""
        self._closed = True
        if self._writes is not None:
            self._work.put(None)
            self._thread.join()
            self._writes.close()
        for reader in self._readers:
            reader.close()

    def _run(self) -> None:
        while (write := self._work.get()) is not None:
            self._safely(self._find_file)
            self._safely(partial(self._write, write))
        if self._trouble:
            self._safely(self._find_file)

    def _safely(self, step: Callable[[], None]) -> None:
        try:
            step()
        except sqlite3.Error as e:
            log.error("history_write_failed=%r path=%s", str(e), self._path)
        except Exception:  # a fault of ours costs one write, not all that follow
            log.exception("history_write_failed path=%s", self._path)

    def _write(self, write: Callable[[Connection], None]) -> None:
        assert self._writes is not None
        with self._writes:
            write(self._writes)

    def _find_file(self) -> None:
        """Where the open file has lost its name, put it back, or open the one in its place.

        Where neither works, writes go on to the open file, and are put back with it later.
        """
        if stands(self._path, self._opened):
            self._trouble = ""
            return
        assert self._writes is not None
        there = identity(self._path)
        is_another = there[0] not in (None, self._opened[0])
        try:
            if not is_another:
                put_back(self._writes, self._path)
            elif there[1] == self._opened[1]:
                remove_log(self._path)
            writes = open_file(self._path)
        except (OSError, sqlite3.Error, ConfigError) as e:
            if not self._trouble:
                log.error("history_lost=%r path=%s", str(e), self._path)
            self._trouble = f"{self._path} was taken away while it was open: {e}"
            return
        self._writes.close()
        self._writes, self._opened, self._trouble = writes, identity(self._path), ""
        what = "another file is taken up" if is_another else "it was gone, and is put back"
        log.warning("history_path=%s: %s", self._path, what)


class HistoryReader:
    """Reads on a connection of its own. One thread at a time; `close` may come from another one."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._reads: Connection | None = None
        self._opened: Identity = ()
        self._closed = False

    def ask(self, fn: Callable[[Connection], T]) -> T:
        """Call `fn` with the connection. Raises EngineError where the file fails."""
        with self._lock:
            if self._closed:
                raise EngineError("The server is stopping.")
            try:
                return fn(self._connection())
            except sqlite3.Error as e:
                raise self._db.failed(e) from e

    def _connection(self) -> Connection:
        """A connection to the file that is open now."""
        if self._reads is not None and self._opened != self._db.opened:
            self._reads.close()
            self._reads = None
        if self._reads is None:
            self._db.open()
            self._opened = self._db.opened  # before: a change meanwhile is seen
            self._reads = self._db.connect()
        return self._reads

    def close(self) -> None:
        """Wait for a read that is running, and close."""
        with self._lock:
            self._closed = True
            if self._reads is not None:
                self._reads.close()


def _nothing(_: Connection) -> None:
    """A write that only lets the writer look for its file."""


def _scrub(db: Connection) -> None:
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
