"""What `bench parallel` found: medians of each server, beside those of the first."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from everwarm.lab import plots
from everwarm.lab.day import DayPlan
from everwarm.lab.parallel import ParallelPlan
from everwarm.lab.report import Figure, Report, Table, missing_plots, report_on, seconds
from everwarm.lab.result import Result


def new_parallel(models: dict[str, str], plan: ParallelPlan | DayPlan) -> Result:
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
    """Tokens a second over all sessions, first tokens, silences. The plot is in `out`."""
    found, servers = parallel_summary(result.rows), list(result.plan["servers"])
    base = servers[0]

    def table(title: str, figure: str, cell: Callable[[float], str]) -> Table:
        rows = list[tuple[str, ...]]()
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
        *missing_plots(),
        facts=f"; {result.started}",
        title="Several sessions at once",
        headline=", ".join(f"{n} ({m})" for n, m in result.plan["servers"].items()),
        figures=_plotted(result, found, out),
        tables=[
            t
            for t in (
                table("Tokens a second, over all sessions", "tokens_per_s", lambda v: f"{v:.1f}"),
                table("Wall time of the whole", "wall_s", seconds),
                table("Of that: the restart", "restart_s", seconds),
                table("Time to the first token", "ttft_s", seconds),
                table("Worst time to the first token", "worst_ttft_s", seconds),
                table("The short question alone", "alone_ttft_s", seconds),
                table("Longest silence of a reply", "longest_gap_s", seconds),
                Table("Errors", ("server", "what ran", "its answer"), errors),
            )
            if t.rows
        ],
    )


def _plotted(result: Result, found: Sequence[dict[str, Any]], out: Path) -> list[Figure]:
    """Tokens a second by the number of sessions, where several numbers were measured."""
    widths = {f"{n} at once": n for n in result.plan.get("sessions", ())}
    lines: dict[str, list[tuple[int, float]]] = {}
    for f in (f for f in found if f["kind"] in widths):
        for server, own in f["servers"].items():
            lines.setdefault(server, []).append((widths[f["kind"]], own["tokens_per_s"]))
    if len(widths) < 2 or not (lines and plots.available()):
        return []
    plots.save(out, "parallel-rates", plots.rates(lines))
    return [Figure("parallel-rates", "Tokens a second over all sessions, by their number")]


def parallel_line(_: Any, row: dict[str, Any], watched: bool) -> str | None:
    """What the terminal shows of a row."""
    if "error" in row:
        return f"{row['kind']}, {row['server']}: {row['error']}"
    figures = f"first token {row['ttft_s']:.2f} s, longest silence {row['longest_gap_s']:.2f} s"
    speed = f"{row['tokens_per_s']:.1f} tokens/s, " if "tokens_per_s" in row else ""
    return f"{row['kind']}, {row['server']}: {speed}{figures}"
