"""The one thread that touches MLX. It takes one step of each running job in turn, by seconds."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import mlx.core as mx

from everwarm.cache.cache import Cache
from everwarm.cache.tier import DiskTier
from everwarm.cache.view import paths_below, pin
from everwarm.codec import Codec
from everwarm.config import Settings
from everwarm.engine.kv import Arrangement, arrange
from everwarm.engine.model import LoadedModel, load_model
from everwarm.engine.run import Run
from everwarm.engine.schedule import Schedule
from everwarm.engine.state import State, bytes_at
from everwarm.engine.storage import open_tier
from everwarm.errors import EngineError, EverwarmError, Overloaded
from everwarm.job import Failed, Job, ModelInfo, Path, Sink, TreeNode

LONG_CHUNK_S: Final = 1.0
SHARED_CHUNK_S: Final = 0.25
LEAST_CHUNK: Final = 32
TIDY_AFTER_S: Final = 60.0
"""Without a job. A person who reads the reply and asks again should find the disk at rest."""


class _Running:
    """A run with its generator."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.steps: Iterator[None] | None = None


class EngineThread:
    """`job.Engine` on a thread of its own. `submit`, `cancel` and `stats` are thread-safe."""

    def __init__(self, model_path: str, settings: Settings) -> None:
        self._settings = settings
        self._path = model_path
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._jobs: dict[str, _Running] = {}
        self._schedule = Schedule(settings.prefill_share)
        self._stopping = False
        self._grace_s = 0.0
        self._idle_since = time.monotonic()
        self._tier: DiskTier | None = None
        self._loaded: Future[LoadedModel] = Future()
        self._thread = threading.Thread(target=self._main, name="everwarm-engine", daemon=True)

    @classmethod
    def start(cls, model_path: str, settings: Settings) -> EngineThread:
        """Load the model and begin. Blocks while loading; raises ConfigError."""
        engine = cls(model_path, settings)
        engine._thread.start()
        try:
            loaded = engine._loaded.result()
        except EverwarmError:
            engine._thread.join()  # a process that exits while MLX's thread ends is aborted
            raise
        engine.codec = loaded.codec
        engine.model = loaded.info
        return engine

    codec: Codec
    model: ModelInfo

    def submit(self, job: Job, sink: Sink) -> None:
        def add() -> None:
            if self._stopping:
                sink(Failed(Overloaded("The server is stopping.")))
                return
            run = Run(job, self._cache, self.codec, sink, self._chunk, self._grammars)
            self._jobs[job.id] = _Running(run)
            self._schedule.add(job.id)

        self._inbox.put(add)

    def cancel(self, job_id: str) -> None:
        def mark() -> None:
            if (r := self._jobs.get(job_id)) is not None:
                r.run.cancelled = True
                if r.run.lease is not None:
                    r.run.lease.holder.ending = True

        self._inbox.put(mark)

    def check(self, grammar: str) -> None:
        """On the caller's thread: `Grammars` is made for several."""
        self._grammars.check(grammar)

    def call(self, fn: Callable[[], Any]) -> Future[Any]:
        """Run a function on the engine's thread, between two steps."""
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(fn())
            except EverwarmError as e:
                future.set_exception(e)

        self._inbox.put(work)
        return future

    def stats(self) -> dict[str, int | float | str]:
        """Blocks until the engine is between two steps."""
        out: dict[str, int | float | str] = dict(self.call(self._cache.stats).result(30))
        if self._tier is not None:
            out |= self._tier.stats()
        return out | {"jobs": len(self._jobs), "memory_bytes": mx.get_active_memory()}

    def forget(self, paths: Sequence[Path]) -> int:
        """Let go what only these paths hold, in memory and on disk; how many bytes."""

        def in_memory() -> int:
            before = self._cache.nbytes
            for p in sorted(paths, key=lambda p: -len(p.tokens)):
                self._cache.forget(p)
            return before - self._cache.nbytes

        nbytes: int = self.call(in_memory).result()
        if self._tier is not None:
            before = self._tier.store.stats().nbytes
            gone = self._tier.store.drop(paths).result()
            self.call(lambda: self._cache.forget_files(gone)).result()
            nbytes += before - self._tier.store.stats().nbytes
        return nbytes

    def tree(self, paths: Mapping[str, Sequence[Path]]) -> list[TreeNode]:
        """The cache's tree as it is between two steps."""
        return list(self.call(lambda: self._cache.view(paths)).result(30))

    def pin(self, node: int, *, is_pinned: bool) -> bool:
        """Keep what a node needs, or no longer."""
        return bool(
            self.call(lambda: pin(self._cache.roots, self._tier, node, is_pinned=is_pinned)).result(
                30
            )
        )

    def drop(self, node: int) -> int | None:
        """Let a node go with all behind it; how many bytes."""
        found = self.call(lambda: paths_below(self._cache.roots, node)).result(30)
        return self.forget(found) if found else None

    def stop(self, grace_s: float = 5.0) -> None:
        """Cancel what runs, file it, end the thread."""
        self._stopping = True
        self._grace_s = grace_s
        for job_id in list(self._jobs):
            self.cancel(job_id)
        self._inbox.put(None)
        self._thread.join(2 * grace_s + LONG_CHUNK_S)

    def _main(self) -> None:
        try:
            self._load()
        except EverwarmError as e:
            self._loaded.set_exception(e)
        else:
            while self._turn():
                pass
        self._jobs.clear()
        if self._tier is not None:
            self._tier.close(self._grace_s)
        mx.synchronize()
        mx.clear_streams()

    def _load(self) -> None:
        s = self._settings
        wanted = Arrangement.of(s)
        loaded = load_model(self._path, model_id=s.model_id, context_length=s.context_length)
        arrange(loaded.model, wanted)
        on_gpu = mx.default_device() == mx.Device(mx.gpu)
        self._chunk = s.prefill_step or (2048 if on_gpu else 512)
        budget = s.memory_budget or int(0.7 * _free_bytes())
        self._tier = open_tier(loaded, s, wake=lambda: self._inbox.put(_nothing))
        self._cache = Cache(
            lambda: State(loaded.model),
            budget=budget,
            keep=s.cache,
            bytes_at=bytes_at(loaded.model, self._chunk),
            tier=self._tier,
        )
        self.codec = loaded.codec
        self._grammars = loaded.grammars
        self._loaded.set_result(loaded)

    def _turn(self) -> bool:
        """Do what has arrived, then one step of whoever has had the least. False: end."""
        self._demote()
        while not self._inbox.empty() or not self._jobs:
            work = self._wait()
            if work is None:
                for r in list(self._jobs.values()):
                    self._end(r)
                return False
            work()
            self._demote()
        ready = [k for k, r in list(self._jobs.items()) if r.steps is not None or self._take_up(r)]
        if ready:
            self._step(self._jobs[self._schedule.next(ready)])
        elif self._jobs:
            time.sleep(0.001)
        return True

    def _wait(self) -> Callable[[], None] | None:
        """The next work; while there is none, the disk is put in order."""
        tier = self._tier
        if self._jobs or tier is None or tier.is_tidy or not tier.is_idle:
            return self._inbox.get()
        try:
            left_s = self._idle_since + TIDY_AFTER_S - time.monotonic()
            return self._inbox.get(timeout=max(left_s, 0.0))
        except queue.Empty:
            tier.tidy()
            return _nothing

    def _demote(self) -> None:
        """Let the disk tier take what it wants: at most one piece, then the next step's turn."""
        if self._tier is not None:
            self._tier.store.is_busy = bool(self._jobs)
            self._tier.step()

    def _take_up(self, r: _Running) -> bool:
        if r.run.cancelled:
            self._end(r)
            return False
        if not r.run.try_lease():
            return False
        r.steps = r.run.steps()
        return True

    def _step(self, r: _Running) -> None:
        began = time.perf_counter()
        prefilling = r.run.phase == "prefill"
        try:
            if r.run.cancelled or r.steps is None:
                self._end(r)
                return
            next(r.steps)
        except StopIteration:
            self._end(r)
            return
        # Whatever a model or a sampler raises ends this job, never the engine.
        except Exception as e:
            self._forget(r)
            known = isinstance(e, EverwarmError)
            error = e if known else EngineError(f"The engine failed: {type(e).__name__}.")
            r.run.sink(Failed(error))  # type: ignore[arg-type]
            return
        took = time.perf_counter() - began
        self._schedule.charge(r.run.job.id, took, prefilling=prefilling)
        if prefilling:
            self._adapt(r.run, took, SHARED_CHUNK_S if len(self._jobs) > 1 else LONG_CHUNK_S)

    def _adapt(self, run: Run, took: float, most_s: float) -> None:
        """Halve the chunk where it takes too long, double it back where there is room."""
        if took > most_s and run.chunk > LEAST_CHUNK:
            run.chunk //= 2
        elif took < most_s / 4 and run.chunk < self._chunk:
            run.chunk *= 2

    def _end(self, r: _Running) -> None:
        if isinstance(r.steps, Iterator) and r.run.cancelled:
            r.steps.close()  # type: ignore[attr-defined]
            r.run.counts.reason = "cancelled"
        self._forget(r)
        r.run.finish()

    def _forget(self, r: _Running) -> None:
        self._jobs.pop(r.run.job.id, None)
        self._schedule.remove(r.run.job.id)
        self._idle_since = time.monotonic()


def _nothing() -> None:
    """Wakes the thread."""


def _free_bytes() -> int:
    """Memory that is free now, after the weights are loaded."""
    if mx.metal.is_available():
        total = int(mx.device_info()["max_recommended_working_set_size"])
        return max(total - mx.get_active_memory(), 1 << 28)
    try:
        with open("/proc/meminfo") as f:
            rows = dict(line.split(":", 1) for line in f)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 << 30
