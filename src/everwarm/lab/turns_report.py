"""The report of `bench turns`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from everwarm.lab import plots, report
from everwarm.lab.machine import sentence
from everwarm.lab.report import Figure, Report, Table, seconds
from everwarm.lab.result import Result
from everwarm.lab.turns import summary


def write(result: Result, out: Path) -> list[Path]:
    """Plots where matplotlib is installed, then Markdown and HTML."""
    samples = summary(result.rows)["samples"]
    figures: list[Figure] = []
    if samples and plots.available():
        figures = _draw(result, samples, out)
    return report.write(_report(result, figures), out, "turns")


def headline(result: Result) -> str:
    """The ratio at the deepest sample, in one sentence."""
    head = summary(result.rows)["headline"]
    if head is None:
        return "No turn was measured both warm and cold."
    return (
        f"{head['tokens']:,} tokens into a conversation the next turn begins after "
        f"{seconds(head['warm_s'])}; read from the start it takes {seconds(head['cold_s'])}: "
        f"{head['ratio']:,.0f} times as long."
    )


def _draw(result: Result, samples: list[dict[str, Any]], out: Path) -> list[Figure]:
    plots.save(out, "turns-ttft", plots.ttft(samples))
    plots.save(out, "turns-read", plots.read_per_turn(result.rows), height=3.2)
    plots.save(out, "turns-hits", plots.hits(result.rows), height=3.0)
    return [
        Figure("turns-ttft", "Time to first token against context: cold, warm, the model alone"),
        Figure("turns-read", "Tokens read at each turn, beside the length of the prompt"),
        Figure("turns-hits", "Part of each prompt that was not read again"),
    ]


def _report(result: Result, figures: list[Figure]) -> Report:
    plan = result.plan
    notes = [
        *result.remarks,
        "warm: time to first token of a short question behind the conversation, measured at the "
        f"client over HTTP; median of up to {plan['questions']}.",
        "cold: the same conversation made unique at its start, so that nothing of it is cached; "
        "once.",
        "model alone: the bare forward of the same suffix at the same depth, with sampling, in a "
        "process of its own, measured in turn with the questions; median.",
        f"{len(result.rows)} requests in {result.seconds / 60:.1f} minutes, begun "
        f"{result.started}" + (", resumed after an interruption." if result.resumed else "."),
    ]
    if not result.complete:
        notes.insert(0, "This run was interrupted; what is here was measured.")
    if not figures:
        notes.append(plots.MISSING)
    return Report(
        title=f"A growing conversation on {result.model}",
        headline=headline(result),
        facts=f"{result.model} on {sentence(result.machine, result.versions)}",
        tables=[_table(summary(result.rows)["samples"])],
        figures=figures,
        notes=notes,
    )


def _table(samples: list[dict[str, Any]]) -> Table:
    head = ("tokens", "warm", "model alone", "warm less model", "cold", "cold / warm",
            "tokens read", "tokens/s", "cache")  # fmt: skip
    rows = [
        (
            f"{s['tokens']:,}",
            seconds(s["warm_s"]),
            seconds(s["floor_s"]),
            seconds(s["over_floor_s"]),
            seconds(s["cold_s"]),
            "-" if s["ratio"] is None else f"{s['ratio']:,.0f}",
            f"{s['prefilled']:,}",
            "-" if s["tokens_per_s"] is None else f"{s['tokens_per_s']:.1f}",
            "-" if s["cache_bytes"] is None else f"{s['cache_bytes'] / 1e6:,.0f} MB",
        )
        for s in samples
    ]
    return Table("Time to first token", head, rows)
