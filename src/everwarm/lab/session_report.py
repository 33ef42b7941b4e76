"""What `bench session` found: its summary and the report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from everwarm.events import beyond_new
from everwarm.lab import plots
from everwarm.lab.report import Figure, Report, Table, missing_plots, report_on, seconds
from everwarm.lab.result import Result

BUCKETS: Final = (
    ("fewer than 500", 0, 500),
    ("500 to 4,999", 500, 5_000),
    ("5,000 or more", 5_000, 1 << 60),
)
MADE_UP: Final = (
    "The session is made up from a seed, with the shares and lengths of recorded ones; its replies "
    "are shorter than real ones."
)
TRACED: Final = (
    "The session is {trace}, a recorded one, {requests} requests: its lengths and what its prompts "
    "share, with words in place of its text."
)
PUBLISHED: Final = (
    "For comparison, mlx-soloheaven's published session (its figures, on its authors' M3 Ultra "
    "with a 397B 8-bit model): 266 messages, 131,927 tokens; 15 of its 16 requests hit (93.8%), "
    "92.2% of tokens reused; time to first token 1.0 to 3.0 s below 500 new tokens, 3.9 to 5.0 s "
    "from 500 on, 55.6 s at about 8,800, 528 s for a full miss of 124K."
)
_BYTES: Final = {
    "cache_bytes": "memory of the cache, at most",
    "memory_bytes": "memory of MLX with model and buffers, at most",
    "disk_bytes": "on disk by the last request",
    "disk_written_today_bytes": "written to disk by then",
}
HIT_FACTOR: Final = 1.02
HIT_TOKENS: Final = 64


def is_hit(row: dict[str, Any]) -> bool:
    """Whether hardly more was read than the model had never read before."""
    allowed = HIT_FACTOR * int(row["unseen_tokens"]) + HIT_TOKENS
    return int(row["prefilled_tokens"]) <= allowed


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Hit rates, ratios and times. Ratios of an empty session count one token."""
    total = {k: sum(r[k] for r in rows) for k in ("prompt_tokens", "cached_tokens",
             "prefilled_tokens", "unseen_tokens", "new_tokens")}  # fmt: skip
    hits = [r for r in rows if is_hit(r)]
    return {
        "requests": len(rows),
        "messages": max((r["messages"] for r in rows), default=0),
        "longest_prompt_tokens": max((r["prompt_tokens"] for r in rows), default=0),
        **total,
        "hits": len(hits),
        "hit_rate_by_request": len(hits) / max(1, len(rows)),
        "hit_rate_by_token": total["cached_tokens"] / max(1, total["prompt_tokens"]),
        "again": sum(beyond_new(r["prefilled_tokens"], r["new_tokens"]) for r in rows),
        "cache_ratio": total["prefilled_tokens"] / max(1, total["unseen_tokens"]),
        "reprocess_ratio": total["prefilled_tokens"] / max(1, total["new_tokens"]),
        "kinds": {k: sum(r["kind"] == k for r in rows) for k in _kinds(rows)},
        "ttft": [t for b in BUCKETS if (t := _ttft(rows, *b))],
        **{f"{k}_most": max((r.get(k, 0) for r in rows), default=0) for k in _BYTES},
        "misses": [
            {k: r[k] for k in ("kind", "prompt_tokens", "prefilled_tokens", "unseen_tokens")}
            for r in rows
            if not is_hit(r)
        ],
    }


def headline(result: Result) -> str:
    """Hit rate and ratios in one sentence."""
    s = summary(result.rows)
    return (
        f"{s['hits']} of {s['requests']} requests hit ({100 * s['hit_rate_by_request']:.1f}%), "
        f"{100 * s['hit_rate_by_token']:.1f}% of prompt tokens were not read again; "
        f"{s['cache_ratio']:.3f} tokens read for each that the model had never read; "
        f"{s['again']:,} tokens read again."
    )


def _kinds(rows: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({str(r["kind"]) for r in rows})


def _ttft(rows: Sequence[dict[str, Any]], name: str, least: int, most: int) -> dict[str, Any]:
    times = [r["ttft_s"] for r in rows if least <= r["prefilled_tokens"] < most]
    if not times:
        return {}
    median = statistics.median(times)
    return {"read": name, "requests": len(times), "median_s": median, "least_s": min(times),
            "most_s": max(times)}  # fmt: skip


def session_report(result: Result, out: Path) -> Report:
    """The report; its plot is in `out`."""
    s = summary(result.rows)
    figures = []
    if result.rows and plots.available():
        plots.save(out, "session-hits", plots.hits(result.rows), height=3.0)
        figures = [Figure("session-hits", "Part of each prompt that was not read again")]
    resumed = (
        f"Interrupted and resumed {result.resumed} times: what had been measured was asked again "
        "first, so that the server was warm.",
    )
    return report_on(
        result,
        *(resumed if result.resumed else ()),
        f"A hit: at most {HIT_FACTOR} times the tokens that the model had never read, and "
        f"{HIT_TOKENS}.",
        TRACED.format(**result.plan) if "trace" in result.plan else MADE_UP,
        "Replies are dictated. Times are those of this machine and model, and depend on how deep "
        "in the conversation a request was.",
        PUBLISHED,
        *missing_plots(),
        facts=f"; {result.started}",
        title=f"An agent's session on {result.model}",
        headline=headline(result),
        tables=[_counts(s), _times(s), _by_kind(result.rows)],
        figures=figures,
    )


def _counts(s: dict[str, Any]) -> Table:
    rows = [
        ("requests", f"{s['requests']:,}"),
        ("messages of the main conversation", f"{s['messages']:,}"),
        ("its tokens", f"{s['longest_prompt_tokens']:,}"),
        ("prompt tokens of all requests", f"{s['prompt_tokens']:,}"),
        ("read", f"{s['prefilled_tokens']:,}"),
        ("never read before", f"{s['unseen_tokens']:,}"),
        ("added by the client", f"{s['new_tokens']:,}"),
        ("hit rate by request", f"{100 * s['hit_rate_by_request']:.2f}%"),
        ("hit rate by token", f"{100 * s['hit_rate_by_token']:.2f}%"),
        ("cache ratio (read / never read before)", f"{s['cache_ratio']:.4f}"),
        ("reprocess ratio (read / added)", f"{s['reprocess_ratio']:.4f}"),
        ("read again (beyond what was added, request by request)", f"{s['again']:,}"),
        *((_BYTES[k], f"{n / 1e6:,.0f} MB") for k in _BYTES if (n := s[f"{k}_most"])),
    ]
    return Table("Counts", ("what", "value"), rows)


def _times(s: dict[str, Any]) -> Table:
    head = ("tokens read", "requests", "median", "least", "most")
    rows = [
        (
            t["read"],
            f"{t['requests']:,}",
            *(seconds(t[k]) for k in ("median_s", "least_s", "most_s")),
        )
        for t in s["ttft"]
    ]
    return Table("Time to first token", head, rows)


def _by_kind(rows: Sequence[dict[str, Any]]) -> Table:
    lines = []
    for kind in _kinds(rows):
        own = [r for r in rows if r["kind"] == kind]
        read, unseen = (sum(r[k] for r in own) for k in ("prefilled_tokens", "unseen_tokens"))
        hits = sum(map(is_hit, own))
        lines.append((kind, f"{len(own)}", f"{hits}", f"{read:,}", f"{unseen:,}"))
    head = ("request", "number", "hits", "read", "never read before")
    return Table("By kind of request", head, lines)
