"""Engines that are killed: a process that forks one for each job, so that no import is waited for.

    python doomed.py     one line of JSON in for each job; what the engine says out, a line each

    {"family", "root", "tokens", "max_tokens", "kill_at", "wait_s", "fault"}
        -> "cached N", "read N", "lead N", "token N", "end N", "dead 0"

An oracle's family runs on the engine's own thread with the oracle's words; any other is a model of
`zoo`. Both are slowed down to `PACE_S` a token, so that the disk keeps up as it does with a model.
An engine kills itself, so that a busy machine does not let it go on for long. `fault` names one
that is planted in the cache (`_faults`).
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

PACE_S = 100e-6
MODEL = bytes(range(32))


@dataclass
class Told:
    """What an engine said of one job until it ended or was killed.

    `leads`: by how much each token led over the next one, in millionths.
    """

    cached: int = 0
    read: int = 0
    reply: list[int] = field(default_factory=list)
    leads: list[int] = field(default_factory=list)
    is_over: bool = False

    def note(self, what: str, n: int) -> None:
        """Take in one line of what it said."""
        match what:
            case "cached":
                self.cached = self.read = n
            case "read":
                self.read = n
            case "lead":
                self.leads.append(n)
            case "token":
                self.reply.append(n)
            case "end":
                self.is_over = True

    def agrees(self, cold: Told) -> bool:
        """Whether the replies are equal up to a tie, which rounding may decide."""
        for ours, theirs, lead in zip(self.reply, cold.reply, cold.leads, strict=True):
            if ours != theirs:
                return lead < 1000
        return True

    def length(self, asked: int) -> int:
        """How many tokens are known to have been read of a prompt of this length."""
        return asked + len(self.reply) - 1 if self.reply else self.read


class Doomed:
    """The parent's side of the process. Live: one job at a time."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdin is not None and child.stdout is not None
        self._in: IO[str] = child.stdin
        self._out: IO[str] = child.stdout

    def run(
        self, family: str, root: Path, tokens: list[int], max_tokens: int, *,
        kill_at: int | None = None, wait_s: float = 0.0, fault: str = "",
    ) -> Told:  # fmt: skip
        """One job in an engine of its own, killed `wait_s` after it has read `kill_at` tokens."""
        job = {
            "family": family, "root": str(root), "tokens": tokens, "max_tokens": max_tokens,
            "kill_at": kill_at, "wait_s": wait_s, "fault": fault,
        }  # fmt: skip
        self._in.write(json.dumps(job) + "\n")
        self._in.flush()
        told = Told()
        for line in self._out:
            what, n = line.split()
            match what:
                case "dead":
                    return told
                case _:
                    told.note(what, int(n))
        raise AssertionError("the process that forks engines has ended")


@contextmanager
def doomed() -> Iterator[Doomed]:
    one = {"OPENBLAS_NUM_THREADS": "1"}  # a pool of threads does not survive a fork
    child = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | one,
    )
    try:
        yield Doomed(child)
    finally:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        child.wait(60)
        child.stdout.close()


def words(seed: int, n: int) -> list[int]:
    """A text that no other seed's begins like."""
    r = random.Random(seed)
    return [10 + r.randrange(3900) for _ in range(n)]


# --- the process that forks ---


def _main() -> None:
    import turn_requests  # noqa: F401  (imports everything, and computes nothing)
    from engine_conversations import LogitsState  # noqa: F401

    from everwarm.engine.thread import EngineThread  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _answer(**json.loads(line))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        _say("dead", 0)


def _say(what: str, n: int) -> None:
    os.write(1, f"{what} {n}\n".encode())


def _answer(
    family: str, root: str, tokens: list[int], max_tokens: int, kill_at: int | None, wait_s: float,
    fault: str,
) -> None:  # fmt: skip
    from turn_requests import marks_of

    from everwarm.engine.thread import EngineThread
    from everwarm.job import Job, Leased, Output, Prefilled, Token
    from everwarm.request import Sampling
    from everwarm.tokens import tokens_of

    outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
    engine = EngineThread(lambda wake: _parts(family, Path(root), wake, fault))
    engine.begin()
    job = Job("j", tokens_of(tokens), tuple(marks_of(tokens)), Sampling(), max_tokens, logprobs=2)
    engine.submit(job, outputs.put)
    told, is_over = Told(), False

    def tell(what: str, n: int) -> None:
        _say(what, n)
        told.note(what, n)

    while not is_over:
        match outputs.get():
            case Leased(cached_tokens=n):
                tell("cached", n)
            case Prefilled(n):
                tell("read", n)
            case Token(id=n, top=top):
                tell("lead", round(1e6 * (top[0][1] - top[1][1])))
                tell("token", n)
            case last:
                tell("end", int(type(last).__name__ == "Ended"))
                is_over = True
        if kill_at is not None and told.length(len(tokens)) >= kill_at:
            time.sleep(wait_s)
            os.kill(os.getpid(), signal.SIGKILL)
    engine.stop()


def _parts(family: str, root: Path, wake: Callable[[], None], fault: str) -> Any:
    from turn_requests import NoText

    from everwarm.cache.disk.disk_store import DiskStore
    from everwarm.cache.disk.tier import DiskTier
    from everwarm.engine.model import LoadedModel
    from everwarm.engine.parts import EngineParts
    from everwarm.job import ModelInfo

    class Silent(NoText):
        eos_ids = frozenset[int]()

    codec: Any = Silent()
    grammars: Any = None
    info = ModelInfo(family, 1 << 20, 4096, 0, 0, family)
    loaded = LoadedModel(None, codec, grammars, info, {}, root)
    tier = DiskTier(DiskStore.open(root), MODEL, wake)
    cache = _faults()[fault](_new_state(family), budget=1 << 34, tier=tier)
    return EngineParts(loaded, cache, tier, 512)


def _faults() -> dict[str, Any]:
    """Caches by what is wrong with them."""
    from everwarm.cache.cache import Cache
    from everwarm.cache.tree import Holder, catch_up

    class NeverFollows(Cache):
        def spill(self, holder: Holder) -> None:
            if not holder.busy:
                super().spill(holder)

    class RowsAlone(Cache):
        def spill(self, holder: Holder) -> None:
            catch_up(holder)
            checkpoint, holder.node.checkpoint = holder.node.checkpoint, holder  # type: ignore
            super().spill(holder)
            holder.node.checkpoint = checkpoint

    class FilesItElsewhere(Cache):
        older: Any = None

        def spill(self, holder: Holder) -> None:
            super().spill(holder)
            node, own = holder.node, holder.node.checkpoint
            node.checkpoint, self.older = self.older or own, own

    return {
        "": Cache,
        "never follows": NeverFollows,
        "rows alone": RowsAlone,
        "files it elsewhere": FilesItElsewhere,
    }


def _new_state(family: str) -> Callable[[], Any]:
    import zoo
    from engine_conversations import LogitsState

    from everwarm.engine.state import ModelState
    from everwarm.testing import ORACLES

    def slow(state: Any, arguments: Callable[[], Any]) -> Callable[[], Any]:
        class Slow(state):  # type: ignore[misc]
            def read(self, tokens: Any) -> Any:
                time.sleep(PACE_S * (len(tokens) if len(tokens) > 1 else 0))
                return super().read(tokens)

        return lambda: Slow(arguments())

    if family in ORACLES:
        return slow(LogitsState, lambda: ORACLES[family])
    model = zoo.build(family)[0]
    return slow(ModelState, lambda: model)


if __name__ == "__main__":
    _main()
