"""The dashboard's API: a snapshot of the server, and the cache's tree, which a person may edit."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final

from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from everwarm import __version__
from everwarm.chat import path_table, session_table
from everwarm.chat.session_json import read
from everwarm.chat.session_store import SessionStore
from everwarm.errors import NotFound
from everwarm.job import Path, TreeNode
from everwarm.server.bodies import Bodies
from everwarm.server.engine_state import engine_facts, engine_stats
from everwarm.server.turns import Turns
from everwarm.wire import sse
from everwarm.wire.model_json import openai_model
from everwarm.wire.strict import StrictObject

SHOWN_SESSIONS: Final = 64
SHOWN_LINES: Final = 200
SHOWN_MISSES: Final = 20


NodeId = Annotated[int, Field(ge=1, lt=2**53)]


class PinBody(StrictObject):
    """POST /api/cache/pin"""

    node: NodeId
    pinned: bool = True


class DropBody(StrictObject):
    """POST /api/cache/drop: a node and all behind it."""

    node: NodeId


class LogLines(logging.Handler):
    """Keeps the last lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.last: deque[dict[str, Any]] = deque(maxlen=SHOWN_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        line = {"at": record.created, "level": record.levelname.lower()}
        self.last.append(line | {"text": record.getMessage()[:2000]})


@dataclass(slots=True)
class Board:
    """The endpoints of the dashboard. Lives on the event loop."""

    turns: Turns
    store: SessionStore
    bodies: Bodies
    lines: LogLines = field(default_factory=LogLines)
    _paths: OrderedDict[str, tuple[float, list[Path]]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        logging.getLogger("everwarm").addHandler(self.lines)

    def endpoints(self) -> dict[str, Callable[[HttpRequest], Awaitable[Response]]]:
        return {
            "/api/dashboard": self._dashboard,
            "/api/cache/tree": self._tree,
            "/api/cache/pin": self._pin,
            "/api/cache/drop": self._drop,
        }

    async def _dashboard(self, _: HttpRequest) -> Response:
        turns = self.turns
        stats = await engine_stats(turns.engine)
        missed = (r for r in turns.records if r.miss and not r.miss.is_scaffold)
        misses = [
            {"turn": r.id, "at": r.at, "miss": r.miss and asdict(r.miss)}
            for r in islice(missed, SHOWN_MISSES)
        ]
        disk = {k.removeprefix("disk_"): v for k, v in stats.items() if k.startswith("disk_")}
        return _json(
            {
                "model": openai_model(turns.model),
                "machine": _machine(),
                "engine": engine_facts(turns.engine.health()),
                "memory": {k: v for k, v in stats.items() if not k.startswith("disk_")},
                "running": [turn.progress() for turn in turns.running.values()],
                "totals": turns.totals.shown(),
                "ttft": {"buckets": turns.totals.buckets()},
                "disk": disk,
                "misses": misses,
                "logs": list(self.lines.last),
            }
        )

    async def _tree(self, _: HttpRequest) -> Response:
        sessions = await self._sessions()
        if self.turns.engine.health().state != "ready":  # there is no tree now
            return _json({"nodes": [], "totals": {}})
        nodes = await asyncio.to_thread(self.turns.engine.tree, sessions)
        stats = await engine_stats(self.turns.engine)
        return _json({"nodes": [_node(n) for n in nodes], "totals": stats})

    async def _sessions(self) -> dict[str, list[Path]]:
        """The paths of the latest sessions; only those that changed are read again."""
        latest, _ = await self.store.read(lambda db: session_table.latest(db, SHOWN_SESSIONS, None))
        changed = {s.id: s.updated for s in latest}
        stale = [x for x, at in changed.items() if self._paths.get(x, (None,))[0] != at]
        if stale:
            found = await self.store.read(lambda db: {x: path_table.of(db, x) for x in stale})
            for x, own in found.items():
                self._paths[x] = (changed[x], [Path(who, tokens) for who, tokens in own])
        self._paths = OrderedDict((x, self._paths[x]) for x in changed)
        return {x: own for x, (_, own) in self._paths.items()}

    async def _pin(self, http: HttpRequest) -> Response:
        body = await self.bodies.parsed(http, partial(read, model=PinBody))
        engine = self.turns.engine
        done = await asyncio.to_thread(lambda: engine.pin(body.node, is_pinned=body.pinned))
        if not done:
            raise _no_node()
        return _json({"node": body.node, "pinned": body.pinned})

    async def _drop(self, http: HttpRequest) -> Response:
        body = await self.bodies.parsed(http, partial(read, model=DropBody))
        nbytes = await asyncio.to_thread(self.turns.engine.delete_node, body.node)
        if nbytes is None:
            raise _no_node()
        return _json({"dropped": True, "bytes": nbytes})


def _no_node() -> NotFound:
    return NotFound("There is no such node now; look again.", param="node", code="node_not_found")


def _node(n: TreeNode) -> dict[str, Any]:
    tier = "both" if n.nbytes and n.disk_nbytes else "memory" if n.nbytes else "disk"
    return {
        "id": n.id,
        "parent": n.parent,
        "tokens": n.end - n.start,
        "from": n.start,
        "to": n.end,
        "bytes": n.nbytes,
        "disk_bytes": n.disk_nbytes,
        "tier": tier if n.nbytes or n.disk_nbytes else "gone",
        "checkpoints": n.checkpoints,
        "pinned": n.is_pinned,
        "sessions": list(n.names),
        "running": n.is_running,
        "value": n.value,
    }


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "version": __version__,
    }


def _json(body: Any) -> Response:
    return Response(sse.dump(body), 200, None, "application/json")
