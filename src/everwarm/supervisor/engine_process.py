"""The engine in a process of its own, as `job.Engine`: the one door of this room."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, get_args

from everwarm.config import Settings
from everwarm.errors import EngineError, EverwarmError, Overloaded
from everwarm.job import EngineHealth, EngineState, Job, ModelInfo, Output, Path, Sink, TreeNode
from everwarm.link.packets import (
    CallAnswer,
    CheckGrammar,
    CountStats,
    DeleteNode,
    DeletePaths,
    Given,
    Heartbeat,
    LoadProgress,
    Opened,
    Packet,
    PinNode,
    ReadTree,
    Stats,
    StopEngine,
    TreeNodes,
    Unusable,
)
from everwarm.supervisor.calls import EngineCalls
from everwarm.supervisor.death import Death
from everwarm.supervisor.dispatch import Dispatch
from everwarm.supervisor.engine_run import MODULE, EngineRun

ANSWER_S: Final = 30.0
GRACE_S: Final = 5.0
CHECK_S: Final = 600.0
"""A grammar is compiled beside the steps; what bounds it are its own limits."""
_TICK_S: Final = 0.25
log = logging.getLogger("everwarm.supervisor")


class EngineProcess:
    """`job.Engine` over a link. All public methods are thread-safe.

    `model` is `info` until the engine says it exactly. `answer_s`: how long a call waits.
    """

    def __init__(
        self, model_path: str, settings: Settings, info: ModelInfo, module: str = MODULE
    ) -> None:
        """`begin` starts it. `module`: what its process runs."""
        self._model_path, self._settings, self._module = model_path, settings, module
        self._model = info
        self.answer_s = ANSWER_S
        self._dispatch, self._calls = Dispatch(), EngineCalls()
        self._changed = threading.Condition()
        self._health = EngineHealth("The model is being loaded.", state="loading")
        self._error: EverwarmError | None = None
        self._run: EngineRun | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._main, name="everwarm-supervisor", daemon=True)

    # --- for other threads ---

    @property
    def model(self) -> ModelInfo:
        return self._model

    def begin(self) -> None:
        """Start the process, and go on starting it. Returns at once."""
        self._thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until it takes jobs. Raises ConfigError where it never will, and Overloaded where
        that takes longer."""
        with self._changed:
            is_settled = self._changed.wait_for(
                lambda: self._health.state == "ready" or self._error is not None, timeout_s
            )
            error = self._error
        if error is not None:
            raise error
        if not is_settled:
            raise Overloaded("The model is still being loaded.")

    def submit(self, job: Job, sink: Sink) -> None:
        self._dispatch.submit(job, sink)

    def cancel(self, job_id: str) -> None:
        self._dispatch.cancel(job_id)

    def check(self, grammar: str) -> None:
        self._calls.ask(CheckGrammar(grammar), CHECK_S)

    def health(self) -> EngineHealth:
        return self._health

    def stats(self) -> dict[str, int | float | str]:
        """Of the engine; while it loads or restarts, how many jobs wait."""
        if self._health.state != "ready":
            return {"jobs": len(self._dispatch)}
        answer = self._calls.ask(CountStats(), self.answer_s)
        assert isinstance(answer, Stats)
        return answer.counts

    def delete(self, paths: Sequence[Path]) -> int:
        nbytes = _given(self._calls.ask(DeletePaths(tuple(paths)), CHECK_S))
        assert nbytes is not None
        return nbytes

    def tree(self, paths: Mapping[str, Sequence[Path]]) -> list[TreeNode]:
        asked = ReadTree({name: tuple(own) for name, own in paths.items()})
        answer = self._calls.ask(asked, self.answer_s)
        assert isinstance(answer, TreeNodes)
        return list(answer.nodes)

    def pin(self, node: int, *, is_pinned: bool) -> bool:
        return bool(_given(self._calls.ask(PinNode(node, is_pinned), self.answer_s)))

    def delete_node(self, node: int) -> int | None:
        return _given(self._calls.ask(DeleteNode(node), CHECK_S))

    def stop(self, grace_s: float = GRACE_S) -> bool:
        """Cancel what runs, file it, end the process. False: it had to be killed, and what was not
        on disk yet is lost."""
        with self._changed:
            self._is_stopping = True
            run, was_ready = self._run, self._health.state == "ready"
            self._changed.notify_all()
        is_clean = run is None or _ended(run, grace_s if was_ready else 0.0)
        if self._thread.ident is not None:
            self._thread.join()
        return is_clean

    # --- on the supervisor's thread ---

    def _main(self) -> None:
        """One life of the process."""
        why: EverwarmError = EngineError("The engine has ended.")
        try:
            death = self._live()
            if death is not None:
                why = self._error or death.error()
        finally:
            stopping = Overloaded("The server is stopping.") if self._is_stopping else None
            self._end(stopping or why)

    def _live(self) -> Death | None:
        """Run a process until it is gone. None: it was to be stopped."""
        with self._changed:
            if self._is_stopping:
                return None
            run = EngineRun(self._model_path, self._settings, self._receive, self._module)
            self._run = run
        while run.is_alive:
            run.has_ended.wait(_TICK_S)
        death = run.reap()
        if not self._is_stopping:
            log.error("engine=died %s", death.how)
        return death

    def _end(self, why: EverwarmError) -> None:
        """Nobody goes on waiting."""
        with self._changed:
            self._error = why
            state: EngineState = "missing" if self._health.state == "missing" else "ended"
            self._health = replace(self._health, why=why.message, state=state)
            self._changed.notify_all()
        self._dispatch.close(why)
        self._calls.close(why)

    # --- on the link's reading thread ---

    def _receive(self, about: str, packet: Packet) -> None:
        if isinstance(packet, get_args(Output)):
            self._dispatch.take(about, packet)
        elif isinstance(packet, get_args(CallAnswer)):
            self._calls.take(about, packet)
        elif isinstance(packet, Heartbeat):
            self._beat(packet)
        elif isinstance(packet, LoadProgress):
            self._note(loaded_bytes=packet.loaded_bytes, total_bytes=packet.total_bytes)
        elif isinstance(packet, Opened):
            self._open(packet.model)
        elif isinstance(packet, Unusable):
            self._error = packet.error
            self._note(state=packet.state, why=packet.error.message)

    def _open(self, model: ModelInfo) -> None:
        assert self._run is not None
        self._model = model
        self._dispatch.opened(self._run.link)
        self._calls.opened(self._run.link)
        self._note(state="ready", why=None)

    def _beat(self, beat: Heartbeat) -> None:
        now = beat.health
        self._note(step_s=now.step_s, disk_state=now.disk_state, disk_why=now.disk_why)

    def _note(self, **changes: object) -> None:
        with self._changed:
            self._health = replace(self._health, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()


def _ended(run: EngineRun, grace_s: float) -> bool:
    """Tell a process to end, and see to it that it does. True: it did by itself."""
    if grace_s:
        run.link.post(StopEngine(grace_s))
        if run.wait(2 * grace_s + 2):
            return run.process.returncode == 0
    run.kill()
    return not grace_s


def _given(answer: CallAnswer) -> int | None:
    assert isinstance(answer, Given)
    return answer.value
