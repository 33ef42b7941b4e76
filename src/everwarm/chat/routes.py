"""The routes of the session API: they read paths and bodies, and answer with sessions and events.

Not here: any logic of sessions.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from everwarm.chat import new_turn, session_table
from everwarm.chat import session_files as files
from everwarm.chat import session_json as wire
from everwarm.chat.compaction import compact, uncompact
from everwarm.chat.live_turn import LiveTurn
from everwarm.chat.new_turn import TurnMaker
from everwarm.chat.session import Session, Tree, branch_at, select, switch
from everwarm.chat.session_store import Change
from everwarm.chat.session_turns import SessionTurns
from everwarm.errors import NotFound, RequestError
from everwarm.server.bodies import Bodies
from everwarm.server.route_policy import Endpoint
from everwarm.server.stream import KEEPALIVE_S
from everwarm.wire import sse
from everwarm.wire.strict import EmptyBody, StrictObject

B = TypeVar("B", bound=StrictObject)


class SessionRoutes:
    """Endpoints by path and method. Lives on the event loop."""

    def __init__(self, turns: SessionTurns, bodies: Bodies, every_s: float = KEEPALIVE_S) -> None:
        self._turns, self._store = turns, turns.store
        self._bodies, self._every_s = bodies, every_s

    def endpoints(self) -> dict[str, Endpoint]:
        """What answers at each path."""
        one = "/api/sessions/{id}"
        methods: dict[str, dict[str, Endpoint]] = {
            "/api/sessions": {"GET": self._list, "POST": self._create},
            "/api/sessions/import": {"POST": self._import},
            one: {"GET": self._get, "PATCH": self._change, "DELETE": self._delete},
            f"{one}/tree": {"GET": self._tree},
            f"{one}/send": {"POST": self._send},
            f"{one}/regenerate": {"POST": self._regenerate},
            f"{one}/continue": {"POST": self._continue},
            f"{one}/edit": {"POST": self._edit},
            f"{one}/stop": {"POST": self._stop},
            f"{one}/stream": {"GET": self._stream},
            f"{one}/branches": {"POST": self._branch},
            f"{one}/select": {"POST": self._select},
            f"{one}/undo": {"POST": self._undo},
            f"{one}/prepare": {"POST": self._prepare},
            f"{one}/compact": {"POST": self._compact},
            f"{one}/uncompact": {"POST": self._uncompact},
            "/api/turns/{id}/cancel": {"POST": self._cancel},
            f"{one}/export": {"GET": self._export},
        }
        return {path: _by_method(of) for path, of in methods.items()}

    # --- sessions ---

    async def _list(self, http: HttpRequest) -> Response:
        page = wire.read_page(http.query_params)
        if page.q.strip():
            hits = await self._store.read(lambda db: session_table.search(db, page.q, page.limit))
            found = [self._turns.describe(s) | {"snippet": snippet} for s, snippet in hits]
            return _json({"sessions": found, "more": False})
        sessions, more = await self._store.read(
            lambda db: session_table.latest(db, page.limit, page.before)
        )
        return _json({"sessions": [self._turns.describe(s) for s in sessions], "more": more})

    async def _create(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.CreateBody)
        choices = wire.choices_of(body.settings)
        return _json(self._turns.describe(await self._store.create(body.title or "", choices)))

    async def _get(self, http: HttpRequest) -> Response:
        session, tree = await self._store.get(_id(http))
        branch = http.query_params.get("branch")
        if branch is not None:
            session = switch(session, branch)
        return await self._whole(session, tree)

    async def _change(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.ChangeBody)

        def change(session: Session, _: Tree) -> Session:
            choices = wire.choices_of(body.settings) if body.settings else session.choices
            return replace(
                switch(session, body.branch or session.branch),
                title=body.title or session.title,
                pinned=session.pinned if body.pinned is None else body.pinned,
                choices=choices,
            )

        session, tree = await self._store.change(_id(http), change)
        return _json(self._turns.describe(session, tree))

    async def _delete(self, http: HttpRequest) -> Response:
        nbytes = await self._turns.delete(_id(http))
        return _json({"deleted": True, "bytes": nbytes})

    async def _tree(self, http: HttpRequest) -> Response:
        session, tree = await self._store.get(_id(http))
        return await asyncio.to_thread(lambda: _json(wire.tree_json(session, tree)))

    async def _export(self, http: HttpRequest) -> Response:
        session, tree = await self._store.get(_id(http))
        form = http.query_params.get("format", "json")
        if form not in ("json", "markdown"):
            raise RequestError("format must be json or markdown.", param="format")
        kind, end = ("application/json", "json") if form == "json" else ("text/markdown", "md")
        headers = {"content-disposition": f'attachment; filename="everwarm-{session.id}.{end}"'}

        def spell() -> Response:
            if form == "json":
                return _json(files.exported(session, tree), headers=headers)
            text = files.markdown(session, tree.path(session.head))
            return Response(text.encode("utf-8", "replace"), 200, headers, f"{kind}; charset=utf-8")

        return await asyncio.to_thread(spell)

    async def _import(self, http: HttpRequest) -> Response:
        body = await self._body(http, files.ImportBody)
        return await self._whole(*await self._store.import_file(body))

    # --- turns ---

    async def _send(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.SendBody)
        return await self._start(http, partial(new_turn.send, text=body.text, parent=body.parent))

    async def _edit(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.EditBody)
        begin = partial(new_turn.edit, message=body.message, text=body.text)
        return await self._start(http, begin)

    async def _regenerate(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.RegenerateBody)
        return await self._start(http, partial(new_turn.regenerate, message=body.message))

    async def _continue(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.ContinueBody)
        return await self._start(http, partial(new_turn.go_on, message=body.message))

    async def _stop(self, http: HttpRequest) -> Response:
        await self._body(http, EmptyBody)
        await self._store.read(lambda db: session_table.number(db, _id(http)))
        return _json({"stopped": await self._turns.stop(_id(http))})

    async def _compact(self, http: HttpRequest) -> Response:
        await self._body(http, EmptyBody)
        return await self._start(http, compact)

    async def _uncompact(self, http: HttpRequest) -> Response:
        await self._body(http, EmptyBody)
        return await self._moved(http, uncompact)

    async def _prepare(self, http: HttpRequest) -> Response:
        await self._body(http, EmptyBody)
        return _json({"state": await self._turns.prepare(_id(http))})

    async def _cancel(self, http: HttpRequest) -> Response:
        """Stop any turn, a client's too: it ends with what it has written."""
        if not self._turns.turns.cancel(_id(http)):
            raise NotFound("No such turn is running.", param="id", code="turn_not_found")
        return _json({"cancelled": True})

    async def _stream(self, http: HttpRequest) -> Response:
        await self._store.read(lambda db: session_table.number(db, _id(http)))
        return self._following(self._turns.live_turn(_id(http)))

    async def _start(self, http: HttpRequest, begin: TurnMaker) -> Response:
        return self._following(await self._turns.start(_id(http), begin))

    def _following(self, running: LiveTurn) -> Response:
        headers = {"cache-control": "no-cache"}
        return StreamingResponse(
            running.follow(self._every_s), media_type="text/event-stream", headers=headers
        )

    # --- places in the tree ---

    async def _branch(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.BranchBody)
        return await self._moved(http, lambda s, t: branch_at(s, t, body.at, body.name))

    async def _select(self, http: HttpRequest) -> Response:
        body = await self._body(http, wire.SelectBody)
        return await self._moved(http, lambda s, t: select(s, t, body.message))

    async def _moved(self, http: HttpRequest, change: Change) -> Response:
        self._turns.check_idle(_id(http))
        return await self._whole(*await self._store.change(_id(http), change))

    async def _undo(self, http: HttpRequest) -> Response:
        await self._body(http, EmptyBody)
        self._turns.check_idle(_id(http))
        return await self._whole(*await self._store.undo(_id(http)))

    async def _whole(self, session: Session, tree: Tree) -> Response:
        """A session and its messages. This may take seconds, so it runs beside the event loop."""

        def spell() -> Response:
            messages = [wire.message_json(e, tree) for e in tree.path(session.head)]
            return _json(self._turns.describe(session, tree) | {"messages": messages})

        return await asyncio.to_thread(spell)

    async def _body(self, http: HttpRequest, model: type[B]) -> B:
        return await self._bodies.parsed(http, partial(wire.read, model=model))


def _id(http: HttpRequest) -> str:
    return str(http.path_params["id"])


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(sse.dump(body), status, headers, "application/json")


def _by_method(methods: dict[str, Endpoint]) -> Endpoint:
    async def answer(http: HttpRequest) -> Response:
        return await methods[http.method if http.method != "HEAD" else "GET"](http)

    return answer
