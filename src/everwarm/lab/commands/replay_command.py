"""Print what recorded requests cost, phase by phase."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from everwarm.client import ChatClient
from everwarm.lab.replay import (
    CostSums,
    FailedRequest,
    RequestCost,
    apart,
    phases,
    replay,
    report,
    worst,
)


def run(
    client: ChatClient, traces: Sequence[Path], without: Collection[str], *, as_json: bool
) -> int:
    """Replay each recording against the server behind `client`, and print its table, or JSON.

    What was counted is printed whatever happens. The exit code: 1 where a request failed.
    """
    made, code = [], 0
    for path in traces:
        reads: list[RequestCost] = []
        failed: list[FailedRequest] = []
        try:
            _follow(client, path, reads, failed)
        except KeyboardInterrupt:
            code = 130
        code = code or (1 if failed else 0)
        made.append(report(path.stem, reads, without, failed))
        if not as_json:
            _show(path.stem, reads, without)
        if code == 130:
            break
    if as_json:
        print(json.dumps({"clients": made}, indent=1))
    return code


def _follow(
    client: ChatClient, path: Path, reads: list[RequestCost], failed: list[FailedRequest]
) -> None:
    """Fill both lists as the answers come; what failed is said at once."""
    say = Console(stderr=True)
    with say.status(f"replaying {path.stem}") as status:
        for one in replay(client, path):
            if isinstance(one, RequestCost):
                reads.append(one)
            else:
                failed.append(one)
                say.print(f"{path.stem}: {one}", highlight=False, markup=False, soft_wrap=True)
            status.update(f"replaying {path.stem}, request {one.seq}")


def _show(name: str, reads: Sequence[RequestCost], without: Collection[str]) -> None:
    console = Console()
    console.print(table(name, reads, without))
    for read in worst(reads):
        console.print(said(read), highlight=False, soft_wrap=True)


def table(name: str, reads: Sequence[RequestCost], without: Collection[str] = ()) -> Table:
    """One row a phase, and all of them together; those in `without` are marked."""
    made = Table(title=name, box=None)
    made.add_column("phase", no_wrap=True)
    for column in ("requests", "prompt", "new", "unseen", "read", "again", "cache", "reprocess"):
        made.add_column(column, justify="right")
    for s in phases(reads):
        made.add_row(*_row(s), style="dim" if s.name in without else None)
    for s in apart(reads, without):
        made.add_row(*_row(s), style="bold")
    return made


def _row(s: CostSums) -> list[str]:
    counts = (s.requests, s.prompt, s.new, s.unseen, s.prefilled, s.again)
    ratios = (s.cache_ratio, s.reprocess_ratio)
    return [s.name, *(f"{n:,}" for n in counts), *(f"{r:.3f}" for r in ratios)]


def said(read: RequestCost) -> str:
    """One line on a request that read more than was new."""
    head = f"request {read.seq} ({read.phase}) read {read.prefilled:,}, {read.new:,} new"
    miss = read.miss
    if not miss:
        return head
    lost = f"text {miss['by_text']:,}, cache {miss['by_cache']:,}"
    return f"{head}: {miss['part']} at token {miss['at']:,}: {miss['cause']} (lost by {lost})"
