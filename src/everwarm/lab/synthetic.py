"""Made-up sessions of a coding agent, with the statistics of recorded ones. No text, as in traces.

What a session does, next to appending a tool's result: a person says something, the last message
changes a little, somebody edits an earlier message, the client drops the reasoning of its history,
the context overflows and is compacted, a subagent is sent off. Equal seeds make equal sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Final

from everwarm.lab.traces import BLOCK

TOOLS, SYSTEM = 12_400, 2_800


@dataclass(frozen=True, slots=True)
class SessionKind:
    """How often a session does what, instead of appending a tool's result.

    `rewrite`: everything behind the system prompt is rewritten, and the end of the system prompt.
    `context`: tokens after which the session is compacted.
    """

    user: float = 0.08
    near: float = 0.06
    edit: float = 0.02
    rewrite: float = 0.02
    subagents: float = 0.03
    context: int = 131_072
    requests: int = 60


KINDS: Final = {
    "mixed": SessionKind(),
    "long": SessionKind(rewrite=0.01, context=290_000, requests=160),
    "loop": SessionKind(0.02, 0.15, 0.01, 0.005, context=270_000, requests=140),
    "edits": SessionKind(0.3, 0.02, 0.2, 0.0, context=270_000, requests=120),
    "head": SessionKind(rewrite=0.1, context=250_000, requests=140),
    "agents": SessionKind(subagents=0.12, context=250_000, requests=160),
    "compaction": SessionKind(context=60_000, requests=160),
}
"""Most sessions grow to about 24 GiB at 80 KiB a token."""


class AgentPrompts:
    """The prompts of one agent. Live; `scale` 1: the lengths of recorded sessions.

    `system`: the blocks of a tools and system prompt that another line had, too.
    """

    def __init__(
        self,
        random: Random,
        ids: count[int],
        scale: float,
        kind: SessionKind,
        system: tuple[int, ...] = (),
    ) -> None:
        self._random, self._ids, self._scale = random, ids, scale
        self._kind, self._context = kind, int(kind.context * scale)
        self.tools, self.system = int(TOOLS * scale), int(SYSTEM * scale)
        self._turns: list[int] = []  # where messages of a person began
        self._blocks: list[int] = [*system]
        self._n = len(system) * BLOCK
        self._grow(self.tools + self.system - self._n)
        self.system_blocks = tuple(self._blocks)

    def first(self) -> dict[str, Any]:
        """A person asks something."""
        return self._request(self._size(300), ["text"])

    def next(self) -> dict[str, Any]:
        """Whatever comes next, the reply before it included."""
        if self._n > self._context:
            return self._rewritten(0.3)
        k = self._kind
        shares = {"user": k.user, "near": k.near, "edit": k.edit, "rewrite": k.rewrite}
        weights = [*shares.values(), 1 - sum(shares.values())]
        what = self._random.choices([*shares, "result"], weights)[0]
        if what == "user":
            return self._said()
        if what == "near":
            return self._near()
        if what == "edit":
            return self._edited()
        if what == "rewrite":
            return self._rewritten(0.9)
        return self._request(self._size(450), ["tool_result"])

    def _said(self) -> dict[str, Any]:
        self._turns.append(self._n)
        return self._request(self._size(200), ["text"])

    def _near(self) -> dict[str, Any]:
        """The client sends the end of its last message a little differently."""
        self._back_to(self._n - self._random.randrange(BLOCK, 3 * BLOCK))
        return self._request(self._size(450), ["tool_result"])

    def _edited(self) -> dict[str, Any]:
        self._back_to(self._random.choice(self._turns or [self._n]))
        return self._request(self._size(300), ["text"])

    def _rewritten(self, kept: float) -> dict[str, Any]:
        """Everything behind the system prompt is rewritten, and the system prompt's end with it."""
        n = self._n - self.tools - self.system
        self._back_to(self.tools + self.system - self._random.randrange(5 * BLOCK))
        return self._request(int(kept * n), ["text", "thinking", "tool_result", "tool_use"])

    def _size(self, median: int) -> int:
        """Lengths spread as recorded ones: the 90th of a hundred is seven times the median."""
        return min(
            int(self._scale * median * self._random.lognormvariate(0, 1.5)) + 1, self._context // 4
        )

    def _request(self, n: int, input_types: list[str]) -> dict[str, Any]:
        self._grow(n)
        out = self._size(200)
        made = {"in": self._n, "out": out, "hash_ids": [*self._blocks], "input_types": input_types}
        if self._random.random() > 0.1:  # else the reply does not come back
            self._grow(out)
        return made

    def _grow(self, n: int) -> None:
        self._n += n
        self._blocks += [next(self._ids) for _ in range(self._n // BLOCK - len(self._blocks))]

    def _back_to(self, at: int) -> None:
        self._n = max(at, BLOCK)
        del self._blocks[self._n // BLOCK :]
        self._turns = [t for t in self._turns if t < self._n]


def trace(
    seed: int, *, kind: str = "mixed", requests: int | None = None, scale: float = 1.0
) -> Any:
    """One session in the form of a trace file. `scale` shrinks every length alike."""
    random, ids, does = Random(seed), count(1), KINDS[kind]
    requests = requests or does.requests
    main = AgentPrompts(random, ids, scale, does)
    out: list[dict[str, Any]] = [{"t": 0.0} | main.first()]
    helper: tuple[int, ...] = ()
    done = 1
    while done < requests:
        t = 10.0 * len(out)
        if random.random() < does.subagents and requests - done > 3:
            n = random.randrange(2, min(12, requests - done))
            line = AgentPrompts(random, ids, scale / 2, does, helper)
            helper = line.system_blocks
            out.append(_subagent(line, t, n))
            done += n
            continue
        out.append({"t": t} | main.next())
        done += 1
    return {"tool_tokens": main.tools, "system_tokens": main.system, "requests": out}


def _subagent(line: AgentPrompts, t: float, n: int) -> dict[str, Any]:
    nested = [line.first(), *(line.next() for _ in range(n - 1))]
    timed = [{"t": 4.0 * i} | r for i, r in enumerate(nested)]
    return {"type": "subagent", "t": t, "tool_tokens": line.tools,
            "system_tokens": line.system, "requests": timed}  # fmt: skip
