"""The process of one engine: `python -m everwarm.engine.process FD`, FD being its end of a link.

It lives as long as the link: where the server is gone it stops as if it had been told to, writes
what it can, and ends. The main thread loads and waits for the end; calls are answered on threads of
their own, heartbeats come from one that waits for nothing of the engine.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from everwarm.errors import EngineError, EverwarmError, MissingMlx
from everwarm.job import Ended, EngineHealth, Failed, Job, Output
from everwarm.link.link import Link
from everwarm.link.packets import (
    Call,
    CallAnswer,
    CallRefused,
    CancelJob,
    CheckGrammar,
    CountStats,
    DeleteNode,
    DeletePaths,
    Given,
    Heartbeat,
    LoadModel,
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

if TYPE_CHECKING:  # it loads MLX, which is done where loading is told
    from everwarm.engine.thread import EngineThread

BEAT_S: Final = 0.5
GRACE_S: Final = 5.0
"""What the disk gets where nobody says how long."""
UNUSABLE: Final = 3
"""The exit code where the model cannot be loaded."""
BROKEN: Final = 70
"""The exit code where a thread has ended that should not: a whole process is better than most."""
log = logging.getLogger("everwarm.engine")


class EngineHost:
    """One engine behind a link. Live: its main thread is `run`."""

    def __init__(self, sock: socket.socket) -> None:
        self.link = Link(sock, "everwarm-link")
        self._todo: queue.SimpleQueue[LoadModel | StopEngine] = queue.SimpleQueue()
        self._engine: EngineThread | None = None
        self._was_terminated = False
        self._callers = ThreadPoolExecutor(8, thread_name_prefix="everwarm-call")

    def run(self) -> NoReturn:
        """Load what the server names, serve it, end."""
        faulthandler.enable(all_threads=False)  # the last words of a fault of native code
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._terminate)
        threading.excepthook = self._break
        self.link.start(self._receive, lambda _: self._stop(GRACE_S))
        threading.Thread(target=self._beat, name="everwarm-beat", daemon=True).start()
        first = self._todo.get()
        if isinstance(first, LoadModel):
            self._load(first)
            first = self._todo.get()
        assert isinstance(first, StopEngine) and self._engine is not None
        is_clean = self._engine.stop(first.grace_s)
        self._leave(0 if is_clean else 1)

    # --- on the main thread ---

    def _load(self, wanted: LoadModel) -> None:
        """Load the model and say so, or why not, and end."""
        if wanted.settings.hang_timeout:  # nobody debugs it
            _leave_no_core()
        level = wanted.settings.log_level.upper()
        logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
        try:
            EngineThread = _engine_class()
            engine = EngineThread.start(
                wanted.model_path,
                wanted.settings,
                lambda done, total: self.link.post(LoadProgress(done, total)),
            )
        except EverwarmError as e:
            self.link.post(Unusable("missing" if isinstance(e, MissingMlx) else "ended", e))
            self._leave(UNUSABLE)
        _settle_interpreter()
        self._engine = engine
        self.link.post(Heartbeat(0, engine.health()))  # a death at once is not one while it loads
        self.link.post(Opened(engine.model))

    def _leave(self, code: int) -> NoReturn:
        """End without waiting for threads: MLX aborts where its own still runs."""
        self.link.flush(1.0)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._was_terminated = True
        self._stop(GRACE_S)

    # --- on other threads ---

    def _stop(self, grace_s: float) -> None:
        """End in order; while the model is loaded, at once: there is nothing to be kept."""
        if self._engine is None:
            os._exit(0)
        self._todo.put(StopEngine(grace_s))

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_S)
            engine = self._engine
            health = EngineHealth() if engine is None else engine.health()
            self.link.post(Heartbeat(0 if engine is None else engine.n_turns, health))
            if health.why is not None:  # it has ended by itself; a new process can go on
                log.critical("engine=ended why=%r", health.why)
                self._leave(BROKEN)

    def _break(self, args: threading.ExceptHookArgs) -> None:
        """A thread has died of an exception that nobody foresaw."""
        threading.__excepthook__(args)
        self._leave(BROKEN)

    # --- on the link's reading thread ---

    def _receive(self, about: str, packet: Packet) -> None:
        if isinstance(packet, LoadModel):
            self._todo.put(packet)
        elif isinstance(packet, StopEngine):
            self._stop(packet.grace_s)
        elif self._engine is None:
            log.error("packet=early kind=%s", type(packet).__name__)
        elif isinstance(packet, Job):
            self._engine.submit(packet, partial(self._tell, about))
        elif isinstance(packet, CancelJob):
            self._engine.cancel(about)
        else:
            self._callers.submit(self._answer, about, packet, self._engine)

    def _tell(self, job_id: str, output: Output) -> None:
        """Send an output. That jobs end since the engine does the server sees by itself."""
        if isinstance(output, (Ended, Failed)):
            assert self._engine is not None
            if self._was_terminated or self._engine.health().why is not None:
                return
        self.link.send(output, job_id)

    def _answer(self, number: str, call: Any, engine: EngineThread) -> None:
        answer: CallAnswer
        try:
            answer = answered(engine, call)
        except EverwarmError as e:
            answer = CallRefused(e)
        except ValueError as e:
            answer = CallRefused(None, str(e))
        # Who asked hears that it failed; the engine goes on.
        except Exception as e:
            log.error("call=failed", exc_info=e)
            answer = CallRefused(EngineError(f"The engine failed: {type(e).__name__}."))
        self.link.send(answer, number)


def answered(engine: EngineThread, call: Call) -> CallAnswer:
    """Do what a call asks for. Raises what the engine raises."""
    if isinstance(call, CheckGrammar):
        engine.check(call.grammar)
        return Given(None)
    if isinstance(call, CountStats):
        return Stats(engine.stats())
    if isinstance(call, DeletePaths):
        return Given(engine.delete(call.paths))
    if isinstance(call, ReadTree):
        return TreeNodes(tuple(engine.tree(call.paths)))
    if isinstance(call, PinNode):
        return Given(engine.pin(call.node, is_pinned=call.is_pinned))
    assert isinstance(call, DeleteNode)
    return Given(engine.delete_node(call.node))


def _leave_no_core() -> None:
    """Die at once: a core file has all conversations in it, and the system closes the link only
    once all of the memory is written. One byte, since Linux writes to a program's pipe with 0."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (least, most))


def _settle_interpreter() -> None:
    """Remove two pauses before a token: a full garbage collection would walk all objects of the
    libraries, which stay anyway; and the link's writer gets its turn after 1 ms instead of 5."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.001)


def _engine_class() -> type[EngineThread]:
    """Import MLX. Raises MissingMlx where it is not there, or does not fit this computer."""
    try:
        from everwarm.engine.thread import EngineThread
    except ImportError as e:
        package = (e.name or "mlx").split(".")[0]
        if package not in ("mlx", "mlx_lm"):
            raise
        if isinstance(e, ModuleNotFoundError):
            said = f"the package {package} is not installed. Install everwarm with its dependencies"
        else:
            said = f"the package {package} cannot be loaded ({e}). Install it again"
        raise MissingMlx(f"No model can run here: {said}: pip install everwarm.") from e
    return EngineThread


if __name__ == "__main__":
    EngineHost(socket.socket(fileno=int(sys.argv[1]))).run()
