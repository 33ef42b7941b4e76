"""What `bench parallel` found: medians of each server, beside those of the first."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from everwarm.lab.parallel import ParallelPlan
from everwarm.lab.report import Report, Table, report_on, seconds
from everwarm.lab.result import Result


def new_parallel(models: dict[str, str], plan: ParallelPlan) -> Result:
    """An empty result for these servers, each with its model's id."""
    names = ", ".join(sorted(set(models.values())))
    return Result(benchmark="parallel", model=names, plan=asdict(plan) | {"servers": models})


def parallel_summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a kind: medians of each server."""
    answered = [r for r in rows if "error" not in r]
    out = []
    for kind in dict.fromkeys(r["kind"] for r in answered):
        own: dict[str, list[dict[str, Any]]] = {}
        for r in answered:
            if r["kind"] == kind:
                own.setdefault(r["server"], []).append(r)
        out.append({"kind": kind, "servers": {s: _medians(rs) for s, rs in own.items()}})
    return out


def _medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    figures = [k for k, v in rows[0].items() if isinstance(v, float)]
    return {k: statistics.median(r[k] for r in rows) for k in figures}


def parallel_report(result: Result, out: Path) -> Report:
    """The report: tokens a second over all sessions, first tokens, silences."""
    found, servers = parallel_summary(result.rows), list(result.plan["servers"])
    base = servers[0]

    def table(title: str, figure: str, cell: Callable[[float], str]) -> Table:
        rows = []
        for f in (f for f in found if any(figure in s for s in f["servers"].values())):
            own = {s: f["servers"].get(s, {}).get(figure) for s in servers}
            ratio = {
                s: f" ({v / own[base]:.2f})" if v and own[base] else "" for s, v in own.items()
            }
            cells = ["-" if v is None else cell(v) + ratio[s] for s, v in own.items()]
            rows.append((f["kind"], *cells))
        return Table(title, ("what runs", *servers), rows)

    errors = [(r["server"], r["kind"], r["error"]) for r in result.rows if "error" in r]
    return report_on(
        result,
        "Medians over the rounds. In brackets: times that of the first server.",
        "Conversations were read once before; a reply's length is what the server says it was.",
        facts=f"; {result.started}",
        title="Several sessions at once",
        headline=", ".join(f"{n} ({m})" for n, m in result.plan["servers"].items()),
        tables=[
            table("Tokens a second, over all sessions", "tokens_per_s", lambda v: f"{v:.1f}"),
            table("Time to the first token", "ttft_s", seconds),
            table("Worst time to the first token", "worst_ttft_s", seconds),
            table("The short question alone", "alone_ttft_s", seconds),
            table("Longest silence of a reply", "longest_gap_s", seconds),
            *([Table("Errors", ("server", "what ran", "its answer"), errors)] if errors else []),
        ],
    )


def parallel_line(_: Any, row: dict[str, Any], watched: bool) -> str | None:
    """What the terminal shows of a row."""
    if "error" in row:
        return f"{row['kind']}, {row['server']}: {row['error']}"
    figures = f"first token {row['ttft_s']:.2f} s, longest silence {row['longest_gap_s']:.2f} s"
    speed = f"{row['tokens_per_s']:.1f} tokens/s, " if "tokens_per_s" in row else ""
    return f"{row['kind']}, {row['server']}: {speed}{figures}"
