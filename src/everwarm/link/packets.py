"""What is said over a link, besides jobs and their outputs, which cross as they are.

A packet is about something: a job by its id, a call by its number, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from everwarm.config import Settings
from everwarm.errors import EverwarmError
from everwarm.job import (
    Ended,
    EngineHealth,
    Failed,
    Job,
    Leased,
    ModelInfo,
    Path,
    Prefilled,
    Token,
    TreeNode,
    Waits,
)

VERSION: Final = 1
"""Of everything here. Both ends are of one installation unless it was changed while it ran."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first packet of each end."""

    version: int
    pid: int


# --- from the server ---


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load this model, and answer with `Opened` or `Unusable`."""

    model_path: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class CancelJob:
    """End the job that this is about at its next step."""


@dataclass(frozen=True, slots=True)
class StopEngine:
    """Cancel what runs, file it, and end. `grace_s`: what a step and the disk get."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class CheckGrammar:
    """`Engine.check`."""

    grammar: str


@dataclass(frozen=True, slots=True)
class CountStats:
    """`Engine.stats`."""


@dataclass(frozen=True, slots=True)
class DeletePaths:
    """`Engine.delete`."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ReadTree:
    """`Engine.tree`."""

    paths: dict[str, tuple[Path, ...]]


@dataclass(frozen=True, slots=True)
class PinNode:
    """`Engine.pin`."""

    node: int
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """`Engine.delete_node`."""

    node: int


# --- from the engine ---


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """So many bytes of the weights are in memory."""

    loaded_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The engine takes jobs."""

    model: ModelInfo


@dataclass(frozen=True, slots=True)
class Unusable:
    """The model was not loaded. `missing`: MLX is not installed."""

    state: Literal["missing", "ended"]
    error: EverwarmError


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The process lives. `step`: the number of the present step; its age is in `health`."""

    step: int
    health: EngineHealth


@dataclass(frozen=True, slots=True)
class Given:
    """What a call gave, where that is a number, yes or no, or nothing."""

    value: int | bool | None


@dataclass(frozen=True, slots=True)
class Stats:
    """What `CountStats` gave."""

    counts: dict[str, int | float | str]


@dataclass(frozen=True, slots=True)
class TreeNodes:
    """What `ReadTree` gave."""

    nodes: tuple[TreeNode, ...]


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call raised. `reason`: the text of a ValueError, where it was one."""

    error: EverwarmError | None
    reason: str = ""


Call = CheckGrammar | CountStats | DeletePaths | ReadTree | PinNode | DeleteNode
CallAnswer = Given | Stats | TreeNodes | CallRefused
FromServer = Hello | LoadModel | Job | CancelJob | StopEngine | Call
FromEngine = (
    Hello
    | LoadProgress
    | Opened
    | Unusable
    | Heartbeat
    | Waits
    | Leased
    | Prefilled
    | Token
    | Ended
    | Failed
    | CallAnswer
)
Packet = FromServer | FromEngine
