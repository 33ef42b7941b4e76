"""An engine whose calls fail on purpose: everything it is made of counts its calls.

A `Fault` raises at its n-th call on the engine's thread, before the call or behind it; what the
engine is made of is passed in wrapped, and nothing is patched.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from everwarm.cache.cache import Cache
from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.tier import DiskTier
from everwarm.engine import layers
from everwarm.engine.lane_trial import can_take_lanes
from everwarm.engine.model import LoadedModel
from everwarm.engine.parts import EngineParts
from everwarm.engine.state import ModelState, bytes_at
from everwarm.engine.thread import EngineThread
from everwarm.job import Ended, Failed, Job, Leased, Output, Token

WAIT_S = 60
When = Literal["before", "behind"]


class Injected(RuntimeError):
    """Raised on purpose."""


class Fatal(BaseException):
    """As `Injected`, where nothing should catch it."""


@dataclass
class Fault:
    """Raises once, at the call with number `at`. `calls` are the names of those so far.

    `only`: calls of this name are counted. `also`: once it is over, the next of this name fails.
    """

    at: int = 0
    when: When = "before"
    error: type[BaseException] = Injected
    calls: list[str] = field(default_factory=list)
    is_armed: bool = False
    only: str | None = None
    also: str | None = None

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call, or fail."""
        if not self._is_counted(name):
            return call()
        self.calls.append(name)
        is_now = len(self.calls) == self.at
        if is_now and self.when == "before":
            raise self.error(name)
        made = call()
        if is_now:
            raise self.error(name)
        return made

    def half(self, name: str, change: Callable[[], None]) -> None:
        """Fail with only this done."""
        if not self._is_counted(name):
            return
        self.calls.append(name)
        if len(self.calls) == self.at:
            change()
            raise self.error(name)

    def _is_counted(self, name: str) -> bool:
        if not self.is_armed or threading.current_thread().name != "everwarm-engine":
            return False
        if self.is_over and name == self.also:
            self.also = None
            raise self.error(name)
        return self.only in (None, name)

    @property
    def name(self) -> str:
        """Which call failed."""
        return f"{self.when} {self.calls[self.at - 1]}" if self.is_over else "none"

    @property
    def is_over(self) -> bool:
        return 0 < self.at <= len(self.calls)


class Counted:
    """Anything whose calls may fail. What some of them give is counted too."""

    def __init__(self, inner: Any, name: str, fault: Fault, gives: dict[str, str] | None = None):
        self.__dict__.update(_inner=inner, _name=name, _fault=fault, _gives=gives or {})

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name.startswith("__"):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            made = self._fault.around(f"{self._name}.{name}", lambda: found(*args, **kwargs))
            given = self._gives.get(name)
            return made if given is None else Counted(made, given, self._fault)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)


STATE_CALLS = (
    "read", "settle", "undo", "cut", "release", "checkpoint", "rewind", "recover", "extend",
    "put_back", "fork", "reserve", "reserve_to", "rows_out", "piece_rows_out", "rows_in",
    "checkpoint_out", "checkpoint_in",
)  # fmt: skip


def _one_layer_back(state: Any, at: int) -> None:
    """What `rewind` and `recover` have done when they fail in the middle."""
    for layer in state._cuttable[:1]:
        layer.trim(layer.offset - at)


def _one_layer_put_back(state: Any, checkpoint: Any) -> None:
    for layer, held in list(
        zip(state._others, checkpoint.held if checkpoint else [], strict=False)
    )[:1]:
        layers.put_back(layer, held)


HALF_WAY: dict[str, Callable[..., None]] = {
    "rewind": lambda state, at, _: _one_layer_back(state, at),
    "recover": lambda state, at, _: _one_layer_back(state, at),
    "undo": lambda state: _one_layer_back(state, state.length - 1),
    "put_back": _one_layer_put_back,
}


def faulty_state(fault: Fault) -> type[ModelState]:
    """A class of states whose calls may fail; some also with one layer done and others not."""

    def counted(name: str) -> Callable[..., Any]:
        whole = getattr(ModelState, name)

        def call(self: ModelState, *args: Any) -> Any:
            if name in HALF_WAY:
                fault.half(f"state.{name} half-way", lambda: HALF_WAY[name](self, *args))
            return fault.around(f"state.{name}", lambda: whole(self, *args))

        return call

    def read_together(states: Any, tokens: Any) -> Any:
        call = "state.read_together"
        return fault.around(call, lambda: ModelState.read_together(states, tokens))

    calls: dict[str, Any] = {name: counted(name) for name in STATE_CALLS}
    calls["read_together"] = staticmethod(read_together)
    return type("FaultyState", (ModelState,), calls)


def engine_of(
    loaded: LoadedModel, fault: Fault, home: Path, *, budget: int, chunk: int = 32, width: int = 0
) -> EngineThread:
    """A running engine of a loaded model, with everything it calls counted."""

    state_of = faulty_state(fault)
    of_states = width if can_take_lanes(loaded.model) else None

    def open_(wake: Callable[[], None]) -> EngineParts:
        store: Any = Counted(DiskStore.open(home / "cache"), "store", fault)
        tier: Any = Counted(DiskTier(store, bytes(range(32)), wake), "tier", fault)
        cache: Any = Cache(
            lambda: state_of(loaded.model, width=of_states),
            budget=budget,
            bytes_at=bytes_at(loaded.model, chunk),
            tier=tier,
        )
        grammars: Any = Counted(loaded.grammars, "grammars", fault, {"matcher": "matcher"})
        codec: Any = Counted(loaded.codec, "codec", fault, {"detokenizer": "detokenizer"})
        wrapped = LoadedModel(
            loaded.model, codec, grammars, loaded.info, loaded.config, loaded.directory
        )
        return EngineParts(wrapped, Counted(cache, "cache", fault), tier, chunk)  # type: ignore[arg-type]

    engine = EngineThread(open_)
    engine.begin()
    return engine


@dataclass
class Turn:
    """What one job was told. `leads`: by how much each token led over the next one."""

    outputs: list[Output]

    @property
    def last(self) -> Output:
        return self.outputs[-1]

    @property
    def reply(self) -> list[int]:
        return [o.id for o in self.outputs if isinstance(o, Token)]

    @property
    def cached(self) -> int:
        return next(o.cached_tokens for o in self.outputs if isinstance(o, Leased))

    def agrees(self, cold: Turn) -> bool:
        """Equal up to a tie, which rounding may decide."""
        said = [o for o in cold.outputs if isinstance(o, Token)]
        for ours, theirs in zip(self.reply, said, strict=False):
            if ours != theirs.id:
                return theirs.top[0][1] - theirs.top[1][1] < 1e-3
        return len(self.reply) == len(said)


def ask(engine: EngineThread, fault: Fault, *jobs: Job) -> list[Turn]:
    """Run jobs side by side to their ends. Fails where one is never told that it is over."""
    boxes: list[queue.SimpleQueue[Output]] = [queue.SimpleQueue() for _ in jobs]
    for job, box in zip(jobs, boxes, strict=True):
        engine.submit(job, lambda o, put=box.put: fault.around("sink", lambda: put(o)))  # type: ignore[misc]
    return [Turn(until_over(box)) for box in boxes]


def until_over(box: queue.SimpleQueue[Output]) -> list[Output]:
    outputs: list[Output] = []
    while not outputs or not isinstance(outputs[-1], Ended | Failed):
        outputs.append(box.get(timeout=WAIT_S))
    return outputs
