"""The one thread that touches MLX. It steps all replies together, and prefills in between.

No exception of a job (`jobs.py`), a call or the disk tier ends the thread. If it ends all the same,
whoever waits is told, and `health` says why.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

import mlx.core as mx

from everwarm.cache.disk.tier import DiskTier
from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.engine.buffers import n_buffers
from everwarm.engine.chunk import ChunkSize
from everwarm.engine.inbox import Inbox
from everwarm.engine.job_run import JobRun
from everwarm.engine.jobs import Jobs, said, tell
from everwarm.engine.model import TellLoaded, tell_nobody
from everwarm.engine.parts import EngineParts, open_parts
from everwarm.engine.pressure_relief import PressureRelief
from everwarm.errors import ConfigError, EngineError, EverwarmError, Overloaded
from everwarm.job import EngineHealth, Failed, Job, ModelInfo, Path, Sink, TreeNode

TIDY_AFTER_S: Final = 60.0
"""Without a job. A person who reads the reply and asks again should find the disk at rest."""
ANSWER_S: Final = 30.0
GRACE_S: Final = 5.0
"""What the disk gets at the end to take what is left, also where the engine ends by itself."""
Open = Callable[[Callable[[], None]], EngineParts]
"""Makes the parts of an engine; it is given what wakes the engine up."""
log = logging.getLogger("everwarm.engine")


class EngineThread:
    """`job.Engine` on a thread of its own. All public methods are thread-safe.

    `answer_s`: how long a call waits for the end of the engine's present step. `n_turns` counts its
    steps; while it does not grow with a job in hand, the engine hangs.
    """

    codec: Codec
    model: ModelInfo

    def __init__(self, open_: Open, settings: Settings | None = None) -> None:
        """`begin` begins it. `open_` is called on the engine's thread."""
        self._open, self._settings = open_, settings or Settings()
        self.answer_s = ANSWER_S
        self._inbox = Inbox()
        self._is_stopping = False
        self._grace_s = GRACE_S
        self._step_since: float | None = None
        self.n_turns = 0
        self._ended: str | None = None
        self._tier: DiskTier | None = None
        self._budget_bytes = 0
        self._disk_hangs = False
        self._loaded: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name="everwarm-engine", daemon=True)

    @classmethod
    def start(
        cls, model_path: str, settings: Settings, progress: TellLoaded = tell_nobody
    ) -> EngineThread:
        """Load the model and begin. Blocks while loading; raises ConfigError.

        `progress(loaded, total)` is called on the engine's thread, in bytes of weights.
        """

        def open_own(wake: Callable[[], None]) -> EngineParts:
            return open_parts(model_path, settings, wake, progress=progress)

        engine = cls(open_own, settings)
        engine.begin()
        return engine

    def begin(self) -> None:
        """Load what it is made of. Blocks until that is done; raises ConfigError."""
        self._thread.start()
        try:
            self._loaded.result()
        except EverwarmError:
            self._thread.join()  # a process that exits while MLX's thread ends is aborted
            raise

    # --- for other threads ---

    def submit(self, job: Job, sink: Sink) -> None:
        def add() -> None:
            self._jobs.add(JobRun(job, self._cache, self.codec, sink, grammars=self._grammars))

        self._inbox.put(add, lambda why: tell(sink, Failed(why)))

    def cancel(self, job_id: str) -> None:
        self._inbox.put(lambda: self._jobs.cancel(job_id), lambda _: None)

    def check(self, grammar: str) -> None:
        """On the caller's thread: `Grammars` is made for several."""
        self._grammars.check(grammar)

    def call(self, fn: Callable[[], Any]) -> Future[Any]:
        """Run a function on the engine's thread, between two steps."""
        return self._inbox.call(fn, self._answer)

    def health(self) -> EngineHealth:
        since = self._step_since
        step_s = 0.0 if since is None else time.monotonic() - since
        health = EngineHealth(self._ended, step_s, budget_bytes=self._budget_bytes)
        if self._tier is None:
            return health
        disk = self._tier.stats()
        return replace(health, disk_state=disk.state, disk_why=disk.why)

    def stats(self) -> dict[str, int | float | str]:
        """Blocks until the engine is between two steps."""
        counts: dict[str, int | float | str] = self._ask(self._counts)
        return counts | {
            "jobs": len(self._jobs),
            "lanes": "together" if self._takes_lanes else "one at a time",
            "memory_bytes": mx.get_active_memory(),
            "memory_cached_bytes": mx.get_cache_memory(),
            "memory_pressure": self._relief.pressure.level,
            "memory_given_back_bytes": self._relief.given_back_bytes,
        }

    def _counts(self) -> dict[str, int | float | str]:
        return self._cache.stats() | {"cache_buffers": n_buffers(self._cache.memory)}

    def delete(self, paths: Sequence[Path]) -> int:
        nbytes: int = self.call(lambda: self._cache.drop(paths)).result()
        if self._tier is not None:
            before = self._tier.stats().nbytes
            deleted = self._tier.delete(paths)
            self.call(lambda: self._cache.drop_files(deleted)).result()
            nbytes += before - self._tier.stats().nbytes
        return nbytes

    def tree(self, paths: Mapping[str, Sequence[Path]]) -> list[TreeNode]:
        """The cache's tree as it is between two steps."""
        return list(self._ask(lambda: self._cache.tree(paths)))

    def pin(self, node: int, *, is_pinned: bool) -> bool:
        """Keep what a node needs, or no longer."""
        return bool(self._ask(lambda: self._cache.pin(node, is_pinned=is_pinned)))

    def delete_node(self, node: int) -> int | None:
        found = self._ask(lambda: self._cache.paths_below(node))
        return self.delete(found) if found else None

    def stop(self, grace_s: float = GRACE_S) -> bool:
        """Cancel what runs, file it, end the thread. False: a step or the disk takes too long."""
        self._grace_s = grace_s
        self._is_stopping = True
        self._inbox.wake()
        self._thread.join(2 * grace_s + 1)
        return not (self._thread.is_alive() or self._disk_hangs)

    def _ask(self, fn: Callable[[], Any]) -> Any:
        """What `fn` gives between two steps. Raises Overloaded where the present one is long."""
        future = self.call(fn)
        try:
            return future.result(self.answer_s)
        except TimeoutError:
            future.cancel()
            raise Overloaded(
                f"The engine's present step takes over {self.answer_s:.0f} s; ask again later.",
                retry_after_s=math.ceil(self.answer_s),
            ) from None

    # --- on the engine's thread ---

    def _main(self) -> None:
        """Load, take turns, close. Whatever ends it, nobody is left waiting."""
        why: EngineError = _stopping()
        try:
            self._load()
            while self._turn():
                pass
        # Beyond a job's errors only a bug or a dying interpreter: say so instead of falling silent.
        except BaseException as e:
            why = self._die(e)
        self._inbox.close(why)
        if self._loaded.exception() is None:
            self._jobs.fail_all(why)
        self._close()

    def _die(self, error: BaseException) -> EngineError:
        """Note why the engine ends before it was told to. What it was loading has failed."""
        if not self._loaded.done():
            self._loaded.set_exception(_unloadable(error))
            return EngineError("The model was not loaded.")
        self._ended = f"The engine has ended ({type(error).__name__})."
        log.critical("engine=ended", exc_info=error)
        return EngineError(f"{self._ended} Its log says why; restart the server.")

    def _close(self) -> None:
        if self._tier is not None:
            self._guard_tier(self._close_tier)
        mx.synchronize()
        mx.clear_streams()

    def _close_tier(self, tier: DiskTier) -> None:
        self._disk_hangs = not tier.close(self._grace_s)

    def _load(self) -> None:
        parts = self._open(self._inbox.wake)
        self._cache, self._tier = parts.cache, parts.tier
        self._budget_bytes = parts.cache.memory.budget
        self._takes_lanes = parts.takes_lanes
        self._relief = PressureRelief(parts.cache, parts.pressure)
        self._jobs = Jobs(parts.cache, ChunkSize(parts.step), self._relief, self._settings)
        self.codec = parts.loaded.codec
        self.model = parts.loaded.info
        self._grammars = parts.loaded.grammars
        self._loaded.set_result(None)

    def _turn(self) -> bool:
        """Do what has arrived, then one step of whoever has had the least. False: end."""
        self._step_since = time.monotonic()
        self.n_turns += 1
        self._demote()
        while not self._is_stopping and (not self._inbox.is_empty or self._jobs.is_idle):
            self._take_work()
        if self._is_stopping:
            self._jobs.end_all()
            return False
        if not self._jobs.step():
            time.sleep(0.001)  # everybody waits for files
        return True

    def _take_work(self) -> None:
        """Run the next thing that was asked; while there is none, the disk is put in order."""
        self._step_since = None
        work = self._inbox.take(self._tidy_in_s())
        self._step_since = time.monotonic()
        if work is not None:
            work()
        else:
            self._guard_tier(lambda tier: tier.tidy())
        self._demote()

    def _tidy_in_s(self) -> float | None:
        """When to put the disk in order if nothing comes; None: there is nothing to do."""
        tier = self._tier
        if not self._jobs.is_idle or tier is None or tier.is_tidy or not tier.is_idle:
            return None
        return max(self._jobs.idle_since + TIDY_AFTER_S - time.monotonic(), 0.0)

    def _demote(self) -> None:
        """Let the disk tier take what it wants: at most one piece, then the next step's turn."""
        if self._tier is not None:
            self._tier.is_busy = not self._jobs.is_idle
            self._tier.is_replying = self._jobs.is_replying
            self._guard_tier(lambda tier: tier.step())

    def _guard_tier(self, action: Callable[[DiskTier], None]) -> None:
        """Run a part of the disk tier. What fails there is written another time, or never."""
        assert self._tier is not None
        try:
            action(self._tier)
        # The disk tier is a convenience: whatever goes wrong in it costs no answer.
        except Exception as e:
            log.error("disk_step=failed", exc_info=e)
            self._tier.skip()

    def _answer(self, future: Future[Any], fn: Callable[[], Any]) -> None:
        """Settle a call's future."""
        try:
            future.set_result(fn())
        except EverwarmError as e:
            future.set_exception(e)
        # Who asked hears that it failed; the engine goes on.
        except Exception as e:
            log.error("call=failed%s", self._jobs.put_right(), exc_info=e)
            future.set_exception(said(e))


def _stopping() -> Overloaded:
    return Overloaded("The server is stopping.")


def _unloadable(error: BaseException) -> BaseException:
    if isinstance(error, EverwarmError):
        return error
    log.error("model=unusable", exc_info=error)
    return ConfigError(
        f"The model cannot be used ({type(error).__name__}); the log says why. Fetch it again, or "
        "choose another."
    )
