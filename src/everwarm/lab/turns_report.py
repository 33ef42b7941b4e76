"""What `bench turns` found: its summary, the report, and a line for each sampled turn."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from everwarm.lab import plots
from everwarm.lab.report import (
    Figure,
    Report,
    Table,
    effort,
    missing_plots,
    or_dash,
    report_on,
    seconds,
)
from everwarm.lab.result import Result
from everwarm.lab.turns import TurnsRun


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One line for each sampled turn, medians of its questions, and the deepest as the headline."""
    turns = dict.fromkeys(r["turn"] for r in rows if r["kind"] == "question")
    samples = [_sample_of([r for r in rows if r["turn"] == t]) for t in turns]
    whole = [s for s in samples if s["ratio"] is not None]
    return {"samples": samples, "headline": whole[-1] if whole else None}


def _sample_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    asked = [r for r in rows if r["kind"] == "question"]
    cold = next((r["ttft_s"] for r in rows if r["kind"] == "cold"), None)
    floors = [r for r in asked if r.get("floor_s") is not None]
    warm = statistics.median(r["ttft_s"] for r in asked)
    rates = [r["tokens_per_s"] for r in asked if r["tokens_per_s"]]
    return {
        "turn": asked[0]["turn"],
        "tokens": round(statistics.median(r["prompt_tokens"] for r in asked)),
        "prefilled": round(statistics.median(r["prefilled_tokens"] for r in asked)),
        "warm_s": warm,
        "floor_s": statistics.median(r["floor_s"] for r in floors) if floors else None,
        "over_floor_s": statistics.median(r["ttft_s"] - r["floor_s"] for r in floors)
        if floors
        else None,
        "cold_s": cold,
        "ratio": None if cold is None else cold / warm,
        "tokens_per_s": statistics.median(rates) if rates else None,
        "cache_bytes": asked[-1].get("cache_bytes"),
    }


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
    """Plots where matplotlib is installed."""
    if not (samples and plots.available()):
        return []
    plots.save(out, "turns-ttft", plots.ttft(samples))
    plots.save(out, "turns-read", plots.read_per_turn(result.rows), height=3.2)
    plots.save(out, "turns-hits", plots.hits(result.rows), height=3.0)
    return [
        Figure("turns-ttft", "Time to first token against context: cold, warm, the model alone"),
        Figure("turns-read", "Tokens read at each turn, beside the length of the prompt"),
        Figure("turns-hits", "Part of each prompt that was not read again"),
    ]


def turns_report(result: Result, out: Path) -> Report:
    """The report; its plots are in `out`."""
    samples = summary(result.rows)["samples"]
    return report_on(
        result,
        "warm: time to first token of a short question behind the conversation, measured at the "
        f"client over HTTP; median of up to {result.plan['questions']}.",
        "cold: the same conversation made unique at its start, so that nothing of it is cached; "
        "once.",
        "model alone: the bare forward of the same suffix at the same depth, with sampling, in a "
        "process of its own, measured in turn with the questions; median.",
        effort(result),
        *missing_plots(),
        title=f"A growing conversation on {result.model}",
        headline=headline(result),
        tables=[_table(samples)],
        figures=_draw(result, samples, out),
    )


def _table(samples: list[dict[str, Any]]) -> Table:
    head = ("tokens", "warm", "model alone", "warm less model", "cold", "cold / warm",
            "tokens read", "tokens/s", "cache")  # fmt: skip
    rows = [
        (
            f"{s['tokens']:,}",
            *(seconds(s[k]) for k in ("warm_s", "floor_s", "over_floor_s", "cold_s")),
            or_dash(s["ratio"], lambda v: f"{v:,.0f}"),
            f"{s['prefilled']:,}",
            or_dash(s["tokens_per_s"], lambda v: f"{v:.1f}"),
            or_dash(s["cache_bytes"], lambda v: f"{v / 1e6:,.0f} MB"),
        )
        for s in samples
    ]
    return Table("Time to first token", head, rows)


def line(run: TurnsRun, row: dict[str, Any], watched: bool) -> str | None:
    """Tell of a sampled turn at its end; where nobody watches, also of each turn that grew."""
    if row["kind"] == "grow":
        told = f"turn {row['turn']}: {row['prompt_tokens']:,} tokens, read "
        told += f"{row['prefilled_tokens']:,} in {row['ttft_s']:.2f} s"
        return None if watched else told
    own = [r["kind"] for r in run.result.rows if r["turn"] == row["turn"]]
    whole = "cold" in own if run.plan.cold else own.count("question") >= run.plan.questions
    if not whole:
        return None
    sample = summary(run.result.rows)["samples"][-1]
    parts = [f"{sample['tokens']:>8,} tokens", f"warm {sample['warm_s']:.3f} s"]
    if sample["floor_s"] is not None:
        parts.append(f"floor {sample['floor_s']:.3f} s")
    if sample["cold_s"] is not None:
        parts += [f"cold {sample['cold_s']:.2f} s", f"{sample['ratio']:,.0f}x"]
    return " · ".join(parts)
