"""Keeps one engine running: starts its process, watches it, and starts it again when it dies.

It gives up only where starting again cannot help: MLX is not installed, or the model cannot be used
and never could.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Final, get_args

from everwarm.config import Settings
from everwarm.errors import ConfigError, EngineError, EverwarmError, Overloaded
from everwarm.job import EngineHealth, EngineState, ModelInfo, Output
from everwarm.link.packets import (
    CallAnswer,
    Heartbeat,
    LoadProgress,
    Opened,
    Packet,
    StopEngine,
    Unusable,
)
from everwarm.supervisor.calls import EngineCalls
from everwarm.supervisor.death import Death
from everwarm.supervisor.dispatch import Dispatch
from everwarm.supervisor.engine_run import EngineRun
from everwarm.supervisor.hang_watch import HangWatch
from everwarm.supervisor.memory_deaths import MemoryDeaths
from everwarm.supervisor.restarts import Restarts

_OURS: Final = (
    "why", "state", "loaded_bytes", "total_bytes", "restarts", "last_words", "lowered_why",
)  # fmt: skip
"""What of `EngineHealth` the supervisor knows; the rest its engine says with each heartbeat."""
TICK_S: Final = 0.25
_KILL_S: Final = 2.0
"""Beyond twice the grace: what a process that was told to stop gets before it is killed."""
log = logging.getLogger("everwarm.supervisor")


class Supervisor:
    """Live: `start`, `stop` and `wait_ready` from any thread, once each; the rest is its own.

    `model` is what was known of the model before it was loaded, until the engine says it exactly.
    """

    def __init__(
        self,
        model_path: str,
        settings: Settings,
        model: ModelInfo,
        dispatch: Dispatch,
        calls: EngineCalls,
        module: str,
    ) -> None:
        self.model = model
        self.health = EngineHealth("The model is being loaded.", state="loading")
        self._model_path, self._settings, self._module = model_path, settings, module
        self._dispatch, self._calls = dispatch, calls
        self._hangs, self._restarts = HangWatch(settings.hang_timeout), Restarts()
        self._memory = MemoryDeaths()
        self._changed = threading.Condition()
        self._unusable: Unusable | None = None
        self._error: EverwarmError | None = None
        self._was_ready = False
        self._run: EngineRun | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._main, name="everwarm-supervisor", daemon=True)

    # --- for other threads ---

    def start(self) -> None:
        self._thread.start()

    def wait_ready(self, timeout_s: float | None) -> None:
        """As `EngineProcess.wait_ready`."""
        with self._changed:
            is_settled = self._changed.wait_for(
                lambda: self.health.state == "ready" or self._error is not None, timeout_s
            )
            error = self._error
        if error is not None:
            raise error
        if not is_settled:
            raise Overloaded("The model is still being loaded.")

    def stop(self, grace_s: float) -> bool:
        """As `EngineProcess.stop`."""
        with self._changed:
            self._is_stopping = True
            run, is_ready = self._run, self.health.state == "ready"
            self._changed.notify_all()
        is_clean = run is None or (_stopped(run, grace_s) if is_ready else _killed(run))
        if self._thread.ident is not None:
            self._thread.join()
        return is_clean

    # --- on its own thread ---

    def _main(self) -> None:
        """One life of the process after the other."""
        try:
            while not self._is_over:
                death = self._live()
                if self._is_over:
                    break
                self._rest(self._took_note(death))
        finally:
            self._end()

    @property
    def _is_over(self) -> bool:
        """Whether there is to be no other life."""
        unusable = self._unusable
        if unusable is not None and (unusable.state == "missing" or not self._was_ready):
            return True
        return self._is_stopping

    def _live(self) -> Death:
        """Run a process until it is gone."""
        self._hangs.begin()
        self._unusable = None
        self._memory.begin()
        self._note(budget_bytes=0)
        began = time.monotonic()
        try:
            with self._changed:
                self._run = run = EngineRun(
                    self._model_path, self._next_settings(), self._receive, self._module
                )
        except OSError as e:
            return Death(code=None, words=str(e), lived_s=time.monotonic() - began)
        if self._is_stopping:  # it was told so before there was anything to end
            run.kill()
        self._watch(run)
        return run.reap()

    def _next_settings(self) -> Settings:
        """As told, but for a budget that was lowered."""
        lowered = self._memory.budget
        return self._settings if lowered is None else replace(self._settings, memory_budget=lowered)

    def _watch(self, run: EngineRun) -> None:
        """Wait for the end of a process, or bring it about where it hangs."""
        before, good_turns = time.monotonic(), self._dispatch.good_turns
        while run.is_alive:
            run.has_ended.wait(TICK_S)
            now = time.monotonic()
            if self._dispatch.good_turns > good_turns:
                good_turns = self._dispatch.good_turns
                self._hangs.good_turn()
            hang = self._hangs.tick(min(now - before, 2 * TICK_S), is_busy=self._dispatch.is_busy)
            if hang is not None and not self._is_stopping:
                run.kill(hang)
                return
            before = now
            self._dispatch.send_waiting()

    def _took_note(self, death: Death) -> float:
        """Tell everybody of a death; gives how long to wait before the next life."""
        error = death.error()
        wait_s = self._restarts.wait_s(self._dispatch.good_turns, death.lived_s)
        is_for_memory = self._memory.note(death, self.health.budget_bytes or None)
        why = self._unusable.error.message if self._unusable else f"The engine {death.how}."
        with self._changed:
            self._run = None
            self.health = EngineHealth(
                f"{why} It starts again.",
                state="restarting",
                restarts=self._restarts.count,
                last_words=death.words,
                lowered_why=self._memory.says,
            )
        # Where a client's grammar was being compiled, that may be to blame, and no job.
        by_fault = not (death.is_from_outside or self._calls.is_compiling)
        self._dispatch.lost(error, by_fault=by_fault)
        self._calls.lost(error)
        log.error(
            "engine=died how=%r lived_s=%.1f restarts=%d next_in_s=%.0f",
            death.how, death.lived_s, self._restarts.count, wait_s,
        )  # fmt: skip
        if is_for_memory:
            log.error("memory=short %s", self._memory.says)
        return wait_s

    def _rest(self, wait_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, wait_s)

    def _end(self) -> None:
        """There will be no other life: nobody goes on waiting."""
        why: EverwarmError = EngineError("The engine has ended. Restart the server.")
        state: EngineState = "ended"
        if self._is_stopping:
            why = Overloaded("The server is stopping.")
        elif self._unusable is not None:
            why, state = self._unusable.error, self._unusable.state
        with self._changed:
            self._error = why
            self.health = replace(self.health, why=why.message, state=state)
            self._changed.notify_all()
        # A fault of the settings is the whole server's: requests are told as of any engine.
        told = Overloaded(why.message, retry_after_s=60) if isinstance(why, ConfigError) else why
        self._dispatch.close(told)
        self._calls.close(told)

    # --- on the link's reading thread ---

    def _receive(self, about: str, packet: Packet) -> None:
        if isinstance(packet, get_args(Output)):
            self._dispatch.take(about, packet)
        elif isinstance(packet, get_args(CallAnswer)):
            self._calls.take(about, packet)
        elif isinstance(packet, Heartbeat):
            self._beat(packet)
        elif isinstance(packet, LoadProgress):
            self._hangs.beat()
            self._note(loaded_bytes=packet.loaded_bytes, total_bytes=packet.total_bytes)
        elif isinstance(packet, Opened):
            self._open(packet.model)
        elif isinstance(packet, Unusable):
            self._unusable = packet

    def _open(self, model: ModelInfo) -> None:
        """The engine takes jobs."""
        with self._changed:
            run = self._run
        assert run is not None
        self.model, self._was_ready = model, True
        self._hangs.beat(0)
        self._note(state="ready", why=None)
        self._calls.opened(run.link)
        self._dispatch.opened(run.link)

    def _beat(self, beat: Heartbeat) -> None:
        self._hangs.beat(beat.step if self.health.state == "ready" else None)
        with self._changed:
            ours = {name: getattr(self.health, name) for name in _OURS}
            self.health = replace(beat.health, **ours)
            self._changed.notify_all()

    def _note(self, **changes: object) -> None:
        with self._changed:
            self.health = replace(self.health, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()


def _stopped(run: EngineRun, grace_s: float) -> bool:
    """Tell a process to stop, and see to it that it does. True: it did by itself, in order."""
    run.link.post(StopEngine(grace_s))
    if run.wait(2 * grace_s + _KILL_S):
        return run.process.returncode == 0
    run.kill()
    return False


def _killed(run: EngineRun) -> bool:
    """End a process that holds nothing worth keeping."""
    run.kill()
    return True
