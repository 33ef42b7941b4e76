"""What `bench strategies` found: its summary, the report, and a line for each row."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

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
from everwarm.lab.strategies import FACTS, StrategiesPlan, StrategiesRun, strategies
from everwarm.lab.strategies_findings import findings

PUBLISHED: Final = Table(
    "Published by mlx-soloheaven: its authors' figures, on their machine, not measured here",
    ("strategy", "TTFT", "tokens/s", "slower at the end", "final cache", "quality"),
    (
        ("no cache", "71.9 s", "26.1", "18%", "-", "thinking loops"),
        ("cached", "0.74 s", "26.2", "18%", "88K", "-"),
        ("cached, thinking budget", "0.69 s", "27.55", "7.4%", "32K", "5.0 of 5"),
        ("reasoning trimmed", "0.66 s", "28.48", "4.9%", "26.5K", "uneven, replies 31% longer"),
        ("rebuilt without cache", "10.46 s", "28.52", "4.8%", "-", "-"),
        ("rotating, 8,192", "0.49 s", "28.38", "2.4%", "8K", "4.32 of 5, recall 4 of 8"),
        ("KV 8-bit", "0.52 s", "26.04", "16.5%", "32K", "4.64 of 5"),
    ),
)  # fmt: skip
PUBLISHED_ON: Final = "Qwen3.5-122B-A10B bf16, 11 turns, M3 Ultra with 512 GB."


def summary(rows: Sequence[dict[str, Any]], plan: dict[str, Any]) -> dict[str, Any]:
    """One line for each strategy that has begun, and what the lines say."""
    made = StrategiesPlan(**plan)
    own = {s.key: [r for r in rows if r["strategy"] == s.key] for s in strategies(made)}
    lines = [
        {"strategy": s.key, "name": s.name, **_line(own[s.key], made)}
        for s in strategies(made)
        if own[s.key]
    ]
    return {"strategies": lines, "findings": findings(lines, made)}


def _line(rows: Sequence[dict[str, Any]], plan: StrategiesPlan) -> dict[str, Any]:
    refused = next((r["why"] for r in rows if r["kind"] == "refused"), None)
    turns = [r for r in rows if r["kind"] == "turn"]
    asked = [r for r in rows if r["kind"] == "recall"]
    if refused is not None or not turns:
        return {"refused": refused}
    rates = [r["tokens_per_s"] for r in turns if r["tokens_per_s"]]
    end = turns[-1]["prompt_tokens"] + turns[-1]["completion_tokens"]
    key = turns[0]["strategy"]
    return {
        "refused": None,
        "turns": len(turns),
        "ttft_s": statistics.mean(r["ttft_s"] for r in turns[1:] or turns),
        "prefilled_tokens": sum(r["prefilled_tokens"] for r in turns),
        "tokens_per_s": statistics.mean(rates) if rates else None,
        "drop": _drop(rates),
        "spread": 1 - min(rates) / max(rates) if rates else None,
        "conversation_tokens": end,
        "cache_tokens": {"none": 0, "window": min(end, plan.window)}.get(key, end),
        "cache_bytes": turns[-1].get("cache_bytes"),
        "reply_tokens": statistics.mean(r["completion_tokens"] for r in turns),
        "answer_tokens": statistics.mean(r["completion_tokens"] for r in asked) if asked else None,
        "recalled": sum(r["right"] for r in asked) if len(asked) == len(FACTS) else None,
    }


def _drop(rates: Sequence[float]) -> float | None:
    """The share by which the last two turns are slower than the first two."""
    if len(rates) < 4:
        return None
    return 1 - statistics.mean(rates[-2:]) / statistics.mean(rates[:2])


def headline(result: Result) -> str:
    """What is recalled under each strategy, in one sentence."""
    lines = summary(result.rows, result.plan)["strategies"]
    known = [f"{x['name']}: {x['recalled']}" for x in lines if x.get("recalled") is not None]
    if not known:
        return "No strategy was measured to its end."
    return f"Recalled, of {len(FACTS)} facts. {'; '.join(known)}."


def strategies_report(result: Result, out: Path) -> Report:
    """The report; its plot is in `out`."""
    plan = StrategiesPlan(**result.plan)
    lines = summary(result.rows, result.plan)["strategies"]
    own = "The model wrote every reply." if plan.own_replies else (
        "Replies are dictated, reasoning included, so that every strategy holds the same "
        f"conversation; those of the budget's row end their reasoning after {plan.budget} tokens, "
        "as the budget would. Answers about the facts are the model's own."
    )  # fmt: skip
    return report_on(
        result,
        *(f"{x['name']}: {x['refused']}" for x in lines if x["refused"]),
        own,
        "TTFT: time to first token at the client, mean of all turns but the first, which is cold "
        "for all. Slower at the end: tokens/s of the last two turns against the first two.",
        *_spread(lines),
        "cache: tokens whose rows are held behind the last turn, and all bytes that the server's "
        "cache holds then, checkpoints included.",
        f"recall: {len(FACTS)} facts told at the start, each asked for on its own behind the "
        "conversation, greedily; right where the answer has the word.",
        effort(result),
        *missing_plots(),
        facts=f". The published figures are those of another model and machine: {PUBLISHED_ON}",
        title=f"Ways of keeping a conversation on {result.model}",
        headline=headline(result),
        tables=[_table(lines), PUBLISHED],
        found=findings(lines, plan),
        figures=_draw([x for x in lines if x.get("recalled") is not None], out),
    )


def _draw(whole: list[dict[str, Any]], out: Path) -> list[Figure]:
    if not (whole and plots.available()):
        return []
    plots.save(out, "strategies", plots.strategies(whole, len(FACTS)), height=3.6)
    alt = "Facts recalled under each strategy, with its time to first token and tokens/s"
    return [Figure("strategies", alt)]


def _spread(lines: Sequence[dict[str, Any]]) -> list[str]:
    """How much the turns of one strategy differ, so that nobody takes noise for a finding."""
    known = [x["spread"] for x in lines if x.get("spread")]
    if not known:
        return []
    return [
        "tokens/s of single turns of one strategy lie up to "
        f"{100 * max(known):.0f}% apart here ({100 * min(known):.0f}% where they agree best): a "
        "smaller slowdown is this machine's noise. So few tokens slow nothing down by themselves; "
        "--turns and --sentences make the conversation longer."
    ]


def _table(lines: Sequence[dict[str, Any]]) -> Table:
    head = ("strategy", "TTFT", "read", "tokens/s", "slower at the end", "cache", "bytes",
            "reply", "recall")  # fmt: skip
    return Table("Measured", head, [_cells(x) for x in lines])


def _cells(x: dict[str, Any]) -> tuple[str, ...]:
    if x["refused"] or "turns" not in x:
        return (x["name"], "refused" if x["refused"] else "-", *["-"] * 7)
    return (
        x["name"],
        seconds(x["ttft_s"]),
        f"{x['prefilled_tokens']:,}",
        or_dash(x["tokens_per_s"], lambda v: f"{v:.1f}"),
        or_dash(x["drop"], lambda v: f"{100 * v:.1f}%"),
        f"{x['cache_tokens']:,}",
        or_dash(x["cache_bytes"], lambda v: f"{v / 1e6:,.1f} MB"),
        f"{x['reply_tokens']:.0f} tokens",
        or_dash(x["recalled"], lambda v: f"{v} of {len(FACTS)}"),
    )


def line(run: StrategiesRun, row: dict[str, Any], watched: bool) -> str | None:
    """Tell of a strategy that was refused; where nobody watches, of every row."""
    if row["kind"] == "refused":
        return f"{row['strategy']}: refused. {row['why']}"
    if watched:
        return None
    if row["kind"] == "recall":
        return f"{row['strategy']}: {row['asked']}: {row['said'].strip()!r}"
    told = f"{row['strategy']}: turn {row['turn']}: {row['prompt_tokens']:,} tokens, read "
    return told + f"{row['prefilled_tokens']:,} in {row['ttft_s']:.2f} s"
