"""What the engine's state means to those who ask: whether to wait, and the bodies of `/health` and
`/ready`.

`/health` says that the server is here: it answers 200 also while the engine loads or starts again,
since requests are taken then, and wait. `/ready` answers 503 as long as a request would wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any, Final

from everwarm.errors import EngineError, Overloaded
from everwarm.job import Engine, EngineHealth

LONG_STEP_S: Final = 120.0
"""A step of a prefill should take about one second; the first of a large model may take many."""
RETRY_AFTER_S: Final = 5
_LOOK_S: Final = 0.1
_STATUS: Final = {
    "loading": "starting",
    "ready": "ok",
    "restarting": "restarting",
    "missing": "failed",
    "ended": "failed",
}


def will_be_ready(now: EngineHealth) -> bool:
    """Whether it cannot answer yet, and is on its way."""
    return now.state in ("loading", "restarting")


def is_broken(now: EngineHealth) -> bool:
    """Whether no request can be answered, and waiting does not help."""
    return _status(now) == "failed"


def not_yet(now: EngineHealth) -> EngineError:
    """The error of a request that does not wait, or for which waiting does not help."""
    if will_be_ready(now):
        return Overloaded(f"{_why(now)} Ask again.", retry_after_s=RETRY_AFTER_S)
    return Overloaded(_why(now), retry_after_s=60)


def health_body(now: EngineHealth, model: str | None) -> dict[str, Any]:
    """What `/health` says. Nothing in it is of a person: it needs no key."""
    body: dict[str, Any] = {"status": _status(now), "model": model}
    if body["status"] != "ok":
        body["why"] = _why(now)
    elif now.step_s > LONG_STEP_S:
        body["why"] = f"The engine's present step has taken {now.step_s:.0f} s so far."
    if now.state == "loading" and now.total_bytes:
        body |= {"loaded_bytes": now.loaded_bytes, "total_bytes": now.total_bytes}
    return body | ({"restarts": now.restarts} if now.restarts else {})


def engine_facts(now: EngineHealth) -> dict[str, Any]:
    """The engine's state for people who watch the server. Last words may name files of theirs."""
    facts: dict[str, Any] = {"state": now.state, "restarts": now.restarts}
    facts |= {"why": now.why} if now.why else {}
    return facts | ({"last_words": now.last_words} if now.last_words else {})


async def until_ready(engine: Engine, timeout_s: float = math.inf) -> bool:
    """Wait while the engine loads or starts again. False: it takes longer than that."""
    since = time.monotonic()
    while will_be_ready(engine.health()):
        if time.monotonic() - since >= timeout_s:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def engine_stats(engine: Engine) -> dict[str, int | float | str]:
    """The engine's counts; none while it cannot be asked."""
    if engine.health().state != "ready":
        return {}
    try:
        return await asyncio.to_thread(engine.stats)
    except EngineError:
        if engine.health().state == "ready":
            raise
        return {}


def _status(now: EngineHealth) -> str:
    """An engine that is ready and says why it cannot answer has ended."""
    return "failed" if now.state == "ready" and now.why else _STATUS[now.state]


def _why(now: EngineHealth) -> str:
    said = {
        "loading": "The model is being loaded.",
        "restarting": "The engine is being started again.",
    }
    return now.why or said.get(now.state, "The engine has ended.")
