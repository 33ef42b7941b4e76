"""The engine in a process of its own, as `job.Engine`: the one door of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from everwarm.config import Settings
from everwarm.job import EngineHealth, Job, ModelInfo, Path, Sink, TreeNode
from everwarm.link.packets import (
    CallAnswer,
    CheckGrammar,
    CountStats,
    DeleteNode,
    DeletePaths,
    Given,
    PinNode,
    ReadTree,
    Stats,
    TreeNodes,
)
from everwarm.supervisor.calls import EngineCalls
from everwarm.supervisor.dispatch import Dispatch
from everwarm.supervisor.engine_run import MODULE
from everwarm.supervisor.supervisor import Supervisor

ANSWER_S: Final = 30.0
GRACE_S: Final = 5.0
LONG_ANSWER_S: Final = 600.0
"""Of what works on beside the engine's steps: grammars are compiled, files are deleted."""


class EngineProcess:
    """`job.Engine` over a link. All public methods are thread-safe.

    `model` is `info` until the engine says it exactly. `answer_s`: how long a call waits.
    """

    def __init__(
        self, model_path: str, settings: Settings, info: ModelInfo, module: str = MODULE
    ) -> None:
        """`begin` starts it. `module`: what its process runs."""
        self.answer_s = ANSWER_S
        self._dispatch, self._calls = Dispatch(), EngineCalls()
        self._supervisor = Supervisor(
            model_path, settings, info, self._dispatch, self._calls, module
        )

    @property
    def model(self) -> ModelInfo:
        return self._supervisor.model

    def begin(self) -> None:
        """Start the process, and go on watching it. Returns at once."""
        self._supervisor.start()

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until it takes jobs. Raises ConfigError where it never will, and Overloaded where
        that takes longer."""
        self._supervisor.wait_ready(timeout_s)

    def submit(self, job: Job, sink: Sink) -> None:
        self._dispatch.submit(job, sink)

    def cancel(self, job_id: str) -> None:
        self._dispatch.cancel(job_id)

    def check(self, grammar: str) -> None:
        self._calls.ask(CheckGrammar(grammar), LONG_ANSWER_S)

    def health(self) -> EngineHealth:
        return self._supervisor.health

    def stats(self) -> dict[str, int | float | str]:
        """Of the engine; while it loads or restarts, how many jobs wait."""
        if self._supervisor.health.state != "ready":
            return {"jobs": len(self._dispatch)}
        answer = self._calls.ask(CountStats(), self.answer_s)
        assert isinstance(answer, Stats)
        return answer.counts

    def delete(self, paths: Sequence[Path]) -> int:
        nbytes = _given(self._calls.ask(DeletePaths(tuple(paths)), LONG_ANSWER_S))
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
        return _given(self._calls.ask(DeleteNode(node), LONG_ANSWER_S))

    def stop(self, grace_s: float = GRACE_S) -> bool:
        """Cancel what runs, file it, end the process. False: it had to be killed, and what was not
        on disk yet is lost."""
        return self._supervisor.stop(grace_s)


def _given(answer: CallAnswer) -> int | None:
    assert isinstance(answer, Given)
    return answer.value
