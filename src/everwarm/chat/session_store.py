"""The sessions of one `history.db`, for the event loop. Each change is one transaction.

Reads have a thread and a connection of their own; changes run on the history's writer thread, and
are durable when they return.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from everwarm.chat import path_table
from everwarm.chat import session_files as files
from everwarm.chat import session_table as table
from everwarm.chat.session import Choices, Entry, Session, Tree, new_session_id
from everwarm.errors import RequestError
from everwarm.history import reply_table
from everwarm.history.database import Connection, Database
from everwarm.job import Path
from everwarm.messages import MessageId

T = TypeVar("T")
Change = Callable[[Session, Tree], Session]


@dataclass(frozen=True, slots=True)
class RemovedSession:
    """What is still to be deleted outside a removed session's rows. `nbytes`: of its messages."""

    nbytes: int
    turns: list[str]
    threads: list[MessageId]
    paths: list[Path]


class SessionStore:
    """Reads and changes sessions. Lives on the event loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="everwarm-sessions")
        self._reader = db.reader()

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Call `fn` on the reading thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reads, self._reader.ask, fn)

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """Call `fn` on the writer thread, as one transaction."""
        if not self._db.is_open:
            await asyncio.to_thread(self._db.open)
        return await asyncio.wrap_future(self._db.call(fn))

    async def get(self, session_id: str) -> tuple[Session, Tree]:
        """A session and its messages. Raises NotFound."""
        return await self.read(lambda db: (table.get(db, session_id), table.tree(db, session_id)))

    async def change(
        self,
        session_id: str,
        change: Change,
        *,
        entries: Callable[[Tree], list[Entry]] | None = None,
    ) -> tuple[Session, Tree]:
        """Add messages and change the session, both or neither: `change` may raise."""

        def work(db: Connection) -> tuple[Session, Tree]:
            tree = table.tree(db, session_id)
            if entries is not None:
                table.add(db, session_id, entries(tree))
                tree = table.tree(db, session_id)
            session = change(table.get(db, session_id), tree)
            table.put(db, session)
            return session, tree

        return await self.write(work)

    async def create(self, title: str, choices: Choices) -> Session:
        now = table.now()
        made = Session(id=new_session_id(), title=title, created=now, updated=now, choices=choices)
        await self.write(lambda db: table.put(db, made))
        return made

    async def import_file(self, body: files.ImportBody) -> tuple[Session, Tree]:
        """Store the session of a file under an id of its own."""
        session, entries = await asyncio.to_thread(
            files.imported, body, new_session_id(), table.now()
        )

        def work(db: Connection) -> None:
            table.put(db, session)
            table.add(db, session.id, entries)

        await self.write(work)
        return session, await asyncio.to_thread(Tree, session.id, entries)

    async def undo(self, session_id: str) -> tuple[Session, Tree]:
        """Take the present branch's last turn off it; delete its rows if no other branch has it."""

        def work(db: Connection) -> tuple[Session, Tree]:
            session, tree = table.get(db, session_id), table.tree(db, session_id)
            questions = [e for e in tree.path(session.head) if e.message.role == "user"]
            if not questions:
                raise RequestError("There is no turn to take back.", code="nothing_to_undo")
            last = questions[-1]
            others = [h for name, h in session.branches.items() if name != session.branch]
            shared = any(tree.is_behind(h, last.id) for h in others)
            session = replace(session.moved(last.parent), updated=table.now())
            table.put(db, session)
            if not shared:
                table.remove_messages(db, session_id, tree.below(last.id))
            return session, table.tree(db, session_id)

        done = await self.write(work)
        await asyncio.wrap_future(self._db.scrub())
        return done

    async def remove(self, session_id: str) -> RemovedSession:
        """Delete a session's rows and its remembered replies."""

        def work(db: Connection) -> RemovedSession:
            own = path_table.of(db, session_id)
            shared = path_table.elsewhere(db, session_id, own)
            turns = table.turns_of(db, session_id)
            threads = reply_table.forget(db, session_id)
            nbytes = table.remove(db, session_id)
            read = [Path(who, t, keep) for (who, t), keep in zip(own, shared, strict=True)]
            return RemovedSession(nbytes, turns, threads, read)

        done = await self.write(work)
        await asyncio.wrap_future(self._db.scrub())
        return done
