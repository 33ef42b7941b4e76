"""What crosses between server and engine: plain values, no arrays, no text of messages.

The engine lives in a process of its own, and everything here is sent as bytes (`link/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from everwarm.errors import EverwarmError
from everwarm.events import CachedFrom
from everwarm.request import Sampling
from everwarm.tokens import Mark, Tokens


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model as the world sees it. `created` is unix seconds, stable across starts.

    `dialect`: the name of how it writes reasoning and calls. `proved`: the kinds of replies that
    are read again word for word; `not_proved`: the others, each with the reason. `limits`: what the
    model cannot do with its chat template, in sentences for people.
    """

    id: str
    context_length: int
    vocab_size: int
    created: int
    nbytes: int
    model_type: str
    quantization: str | None = None
    has_reasoning: bool = False
    has_tools: bool = False
    aliases: tuple[str, ...] = ()
    dialect: str = ""
    proved: tuple[str, ...] = ()
    not_proved: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts that open and close the parts of a reply, as its model writes them.

    Where the closing marker of calls is empty, they end with the turn. `closing`: what stands
    between reasoning and answer, the marker included. `in_reasoning`: the prompt ends in reasoning.
    """

    reasoning: tuple[str, str]
    calls: tuple[tuple[str, str], ...]
    closing: Tokens[int]
    in_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a reply has to be, as texts that `Engine.check` takes.

    `reply`: the whole reply, or the marker with which it opens reasoning. `answer`: what follows
    reasoning.
    """

    reply: str
    answer: str


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to be read and continued.

    `max_tokens` is bounded by the context; with 0 the prompt is read and kept, and nothing is
    written. `logprobs`: as in `Request`. `forced`: the reply's tokens, read as if they had been
    sampled; the turn ends behind them, and no other rule applies. `thinking_budget`: after so many
    tokens of reasoning `markers.closing` is written; None: never.
    """

    id: str
    tokens: Tokens[int]
    marks: tuple[Mark, ...]
    sampling: Sampling
    max_tokens: int
    logprobs: int | None = None
    namespace: str = ""
    forced: Tokens[int] | None = None
    markers: Markers | None = None
    thinking_budget: int | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """The tokens of a sequence that a caller read. Others read the first `keep` of them, too."""

    namespace: str
    tokens: Tokens[int]
    keep: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """A node of the cache's tree, for people: tokens [start, end) behind its parent.

    `nbytes` in memory and `disk_nbytes` on disk count its part of the pieces that it shares.
    `value`: what a byte of it is worth to the eviction; None where it may not be evicted. `names`:
    of the paths that lead through it.
    """

    id: int
    parent: int | None
    start: int
    end: int
    nbytes: int
    disk_nbytes: int
    checkpoints: int
    is_pinned: bool
    is_running: bool
    names: tuple[str, ...]
    value: float | None


@dataclass(frozen=True, slots=True)
class Waits:
    """The job has not begun, and why: a part of a sentence for people. Said again now and then."""

    why: str


@dataclass(frozen=True, slots=True)
class Leased:
    """The job begins: this much of its prompt need not be read."""

    cached_tokens: int
    unseen_tokens: int
    cached_from: CachedFrom
    wait_s: float
    restore_s: float


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The first `done` of `total` prompt tokens are read."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Token:
    """The next token of the reply. Log-probabilities only where the job asked for them."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over, and what it read is kept.

    `stop`: the model wrote an end-of-turn token, which is not among the reply's tokens. Whoever
    reads a reply cancels it at a stop text: only a parser knows what is text of the answer.
    `prefilled_tokens` counts what was read before the first new token. `thinking_cut`: the
    thinking budget closed the reasoning.
    """

    reason: Literal["stop", "length", "cancelled"]
    prefilled_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float
    commit_s: float
    thinking_cut: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The job is over because of an error; other jobs are not touched."""

    error: EverwarmError


EngineState = Literal["loading", "ready", "restarting", "missing", "ended"]
"""`missing`: MLX is not installed. `ended`: for good. While it loads or restarts, jobs wait."""


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Whether the engine can answer. `why`: what keeps it from answering; None where it can.

    `step_s`: how long its present step has taken so far. `disk_state` and `disk_why` are None
    without a disk tier. `loaded_bytes` of `total_bytes` of the weights are in memory, while it
    loads. `restarts` counts how often its process had to be started again; `last_words` are the
    last lines that the latest one wrote before it died. `budget_bytes`: memory for conversations;
    `lowered_why`: why that is less than it was told to take; "" where it is not.
    """

    why: str | None = None
    step_s: float = 0.0
    disk_state: str | None = None
    disk_why: str | None = None
    state: EngineState = "ready"
    loaded_bytes: int = 0
    total_bytes: int = 0
    restarts: int = 0
    last_words: str = ""
    budget_bytes: int = 0
    lowered_why: str = ""


Output = Waits | Leased | Prefilled | Token | Ended | Failed
Sink = Callable[[Output], None]


class Engine(Protocol):
    """Runs jobs. Every method may be called from any thread.

    Methods that wait raise Overloaded where the engine's present step takes too long, and
    EngineError once it has ended.
    """

    @property
    def model(self) -> ModelInfo: ...

    def submit(self, job: Job, sink: Sink) -> None:
        """Run a job. `sink` gets outputs on a thread of the engine, `Ended` or `Failed` last.

        A job waits while the engine loads or restarts. Where the engine has ended, `sink` gets
        `Failed` at once, on the caller's thread.
        """

    def cancel(self, job_id: str) -> None:
        """End a job at its next step, with `Ended("cancelled")`. An unknown id is ignored."""

    def check(self, grammar: str) -> None:
        """Compile a grammar of a job to come, and keep it. Blocks: call it on its own thread.

        Raises ValueError with the reason where a reply cannot be held to it.
        """

    def health(self) -> EngineHealth:
        """Whether it can answer. Does not wait."""

    def stats(self) -> dict[str, int | float | str]:
        """Count running and waiting jobs, bytes held, states and pieces, for people. Waits."""

    def delete(self, paths: Sequence[Path]) -> int:
        """Delete what only these paths hold, in memory and on disk; gives how many bytes.

        Waits until it is done, so it is not for the event loop. Running jobs keep what they use.
        """

    def tree(self, paths: Mapping[str, Sequence[Path]]) -> list[TreeNode]:
        """The cache's tree as it is between two steps, parents first. Waits."""

    def pin(self, node: int, *, is_pinned: bool) -> bool:
        """Hold a node and what it needs beyond all budgets, or no longer. False: no such node."""

    def delete_node(self, node: int) -> int | None:
        """Delete a node with all behind it; gives how many bytes. None: no such node. Waits."""
