"""Rules for checkpoints, compared on recorded or made-up sessions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from everwarm.config import nbytes_of
from everwarm.errors import ConfigError
from everwarm.lab import synthetic, traces
from everwarm.lab.simulate import UNLIMITED, VARIANTS, Score, Sizes, replay
from everwarm.lab.traces import TracedHistory, TracedSession


@dataclass(frozen=True, slots=True)
class Trial:
    """What to replay, and for what model and memory."""

    paths: Sequence[Path]
    history: TracedHistory
    together: int
    sizes: Sizes


def run(trial: Trial, *, n_synthetic: int, seed: int, kind: str, as_json: bool) -> None:
    """Replay all sessions under each policy and print the table, or JSON."""
    if trial.history not in get_args(TracedHistory):
        raise ConfigError("--history must be verbatim or template.")
    for path in trial.paths:
        if not path.exists():
            raise ConfigError(f"The trace {path} does not exist.")
    if kind not in synthetic.KINDS:
        raise ConfigError(f"--kind must be one of {', '.join(synthetic.KINDS)}.")
    sessions = (
        traces.read(trial.paths, trial.history)
        if trial.paths
        else made_up(seed, n_synthetic, kind, trial.history)
    )
    scores = [Score(v.name) for v in VARIANTS]
    names: list[str] = []
    with Console(stderr=True).status("replaying") as status:
        for group in _groups(sessions, trial.together):
            names += [s.name for s in group]
            status.update(f"replaying {names[-1]}, session {len(names)}")
            for variant, score in zip(VARIANTS, scores, strict=True):
                replay(variant, group, trial.sizes, score)
    if as_json:
        print(json.dumps(report(trial, names, scores), indent=2))
    else:
        Console().print(table(trial, scores))


def sizes_of(token_bytes: str, checkpoint_bytes: str, budget: str | None) -> Sizes:
    """Read the flags of sizes. Raises ConfigError."""
    return Sizes(
        nbytes_of(token_bytes, "--token-bytes"),
        nbytes_of(checkpoint_bytes, "--checkpoint-bytes"),
        UNLIMITED if budget is None else nbytes_of(budget, "--budget"),
    )


def made_up(seed: int, n: int, kind: str, history: TracedHistory) -> Iterator[TracedSession]:
    """Synthetic sessions, one by one."""
    for i in range(seed, seed + n):
        yield traces.session(synthetic.trace(i, kind=kind), f"{kind} {i}", history)


def report(trial: Trial, names: Sequence[str], scores: Iterable[Score]) -> dict[str, object]:
    """All that was counted, and on what."""
    sizes = asdict(trial.sizes)
    if trial.sizes.budget == UNLIMITED:
        sizes["budget"] = None
    return {
        "sessions": list(names),
        "history": trial.history,
        "together": trial.together,
        "nbytes": sizes,
        "policies": [s.as_dict() for s in scores],
    }


def table(trial: Trial, scores: Sequence[Score]) -> Table:
    """One row a policy."""
    one = scores[0]
    made = Table(
        title=f"{one.requests:,} requests, {one.prompt_tokens:,} prompt tokens, "
        f"history {trial.history}",
        box=None,
    )
    made.add_column("checkpoints kept", no_wrap=True)
    for name in ("hit", "near-full", "lost", "refused", "reprocess", "bytes"):
        made.add_column(name, justify="right")
    for s in scores:
        made.add_row(
            s.policy,
            f"{100 * s.hit:.2f}%",
            f"{100 * s.near_full / max(1, s.requests):.2f}%",
            f"{100 * s.lost_half / max(1, s.requests):.2f}%",
            f"{s.refused:,}",
            f"{s.reprocess:.3f}",
            f"{s.cache_bytes_most / 1e9:.0f} GB",
        )
    return made


def _groups(sessions: Iterator[TracedSession], n: int) -> Iterator[list[TracedSession]]:
    group: list[TracedSession] = []
    for session in sessions:
        group.append(session)
        if len(group) == n:
            yield group
            group = []
    if group:
        yield group
