"""What the figures of the strategies say, in words beside what was published. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from everwarm.lab.report import seconds
from everwarm.lab.strategies import FACTS, StrategiesPlan

ResultRow = dict[str, Any]
ResultRows = dict[str, ResultRow]
CLOSE: Final = 0.02
"""Drops or times that differ by less count as equal."""


def findings(lines: Sequence[ResultRow], plan: StrategiesPlan) -> list[str]:
    """What was found here, what was published, and where they differ, for complete strategies."""
    whole = {x["strategy"]: x for x in lines if x.get("recalled") is not None}
    asked: list[tuple[tuple[str, ...], Callable[[ResultRows, StrategiesPlan], str]]] = [
        (("none", "warm"), _warmth),
        (("warm", "budget"), _budget),
        (("warm", "template"), _template),
        (("warm", "window"), _window),
        (("warm", "kv8"), _eight),
        (("warm", "kv4"), _four),
    ]
    return [say(whole, plan) for needs, say in asked if all(k in whole for k in needs)]


def _warmth(x: ResultRows, plan: StrategiesPlan) -> str:
    cold, warm = x["none"], x["warm"]
    ratio = cold["ttft_s"] / warm["ttft_s"]
    return _finding(
        f"A warm turn begins after {seconds(warm['ttft_s'])}, one without a cache after "
        f"{seconds(cold['ttft_s'])}: {ratio:,.0f} times as long; recall is {warm['recalled']} and "
        f"{cold['recalled']} of {len(FACTS)}",
        "71.9 s without a cache and 0.74 s with one, 97 times, behind up to 88K tokens",
        {"warm turns begin sooner": ratio > 1 + CLOSE},
    )


def _budget(x: ResultRows, plan: StrategiesPlan) -> str:
    kept, cut = x["warm"], x["budget"]
    return _finding(
        f"With {plan.budget} tokens of reasoning the conversation ends {_shorter(cut, kept)}; "
        f"{_drops(cut, kept)}; {_recalls(cut, kept)}",
        "64% shorter (32K of 88K), tokens/s falls by 7.4% and not by 18%, quality 5.0 of 5",
        {
            "tokens/s falls less": _falls_less(cut, kept),
            "nothing is lost in quality (here: recall)": cut["recalled"] >= kept["recalled"],
        },
    )


def _template(x: ResultRows, plan: StrategiesPlan) -> str:
    kept, dropped = x["warm"], x["template"]
    return _finding(
        f"With the template's history the conversation ends {_shorter(dropped, kept)}; "
        f"{dropped['prefilled_tokens']:,} tokens are read and not {kept['prefilled_tokens']:,}, "
        "since each reply is read again without its reasoning; TTFT is x "
        f"{dropped['ttft_s'] / kept['ttft_s']:.2f}; {_drops(dropped, kept)}; "
        f"{_recalls(dropped, kept)}",
        "70% shorter (26.5K of 88K), TTFT x 0.89, tokens/s falls by 4.9% and not by 18%, replies "
        "31% longer and inconsistent",
        {
            "turns begin sooner": dropped["ttft_s"] < kept["ttft_s"],
            "tokens/s falls less": _falls_less(dropped, kept),
            "quality suffers (here: recall)": dropped["recalled"] < kept["recalled"],
        },
    )


def _window(x: ResultRows, plan: StrategiesPlan) -> str:
    whole, window = x["warm"], x["window"]
    claims: dict[str, bool | None] = {
        "facts are forgotten": window["recalled"] < whole["recalled"],
        "tokens/s falls less": _falls_less(window, whole),
    }
    if whole["cache_bytes"] and window["cache_bytes"]:
        claims["the cache is smaller"] = window["cache_bytes"] < whole["cache_bytes"]
    return _finding(
        f"Behind {whole['conversation_tokens']:,} tokens a window of {plan.window:,} "
        f"{_recalls(window, whole)}; {_drops(window, whole)}; {_bytes(window, whole)}, since a "
        "window cannot be cut and rests as checkpoints",
        "a window of 8,192 recalled 4 of 8; tokens/s falls by 2.4% and not by 7.4%",
        claims,
    )


def _eight(x: ResultRows, plan: StrategiesPlan) -> str:
    whole, few = x["warm"], x["kv8"]
    return _finding(
        _bits(8, few, whole),
        "tokens/s falls by 16.5% and not by 7.4%, x 0.95 on average; quality 4.64 and not 5.0",
        {
            "tokens are written more slowly": _is_slower(few, whole),
            "tokens/s falls more": _falls_less(whole, few),
            "quality suffers (here: recall)": few["recalled"] < whole["recalled"],
        },
    )


def _four(x: ResultRows, plan: StrategiesPlan) -> str:
    return _finding(_bits(4, x["kv4"], x["warm"]), "nothing", {})


def _finding(here: str, there: str, claims: dict[str, bool | None]) -> str:
    """One finding. `claims`: what was published, and whether it holds here; None: only noise."""
    parts = [f"{here}.", f"Published: {there}."]
    for told, is_so in (
        ("The same here", True),
        ("Not so here", False),
        ("Lost in noise here", None),
    ):
        if named := [c for c, so in claims.items() if so is is_so]:
            parts.append(f"{told}: {', '.join(named)}.")
    return " ".join(parts)


def _bits(n: int, few: ResultRow, whole: ResultRow) -> str:
    return (
        f"{n} bits: {_bytes(few, whole)}; {_drops(few, whole)}; tokens/s is x {_rate(few, whole)}; "
        f"{_recalls(few, whole)}"
    )


def _shorter(a: ResultRow, b: ResultRow) -> str:
    return f"{100 * (1 - a['conversation_tokens'] / b['conversation_tokens']):.0f}% shorter"


def _falls_less(a: ResultRow, b: ResultRow) -> bool | None:
    """Whether `a` slows down less. None: they differ by less than the turns of one strategy do."""
    if a["drop"] is None or b["drop"] is None:
        return None
    apart = float(b["drop"] - a["drop"])
    return None if abs(apart) < max(CLOSE, a["spread"], b["spread"]) else apart > 0


def _is_slower(a: ResultRow, b: ResultRow) -> bool | None:
    if not (a["tokens_per_s"] and b["tokens_per_s"]):
        return None
    noise = max(CLOSE, a["spread"], b["spread"]) / math.sqrt(a["turns"])
    less = 1 - float(a["tokens_per_s"] / b["tokens_per_s"])
    return None if abs(less) < noise else less > 0


def _drops(a: ResultRow, b: ResultRow) -> str:
    if a["drop"] is None or b["drop"] is None:
        return "how tokens/s changes was not measured in so few turns"
    return f"tokens/s {_falls(a['drop'])} ({_falls(b['drop'])} with all kept)"


def _falls(drop: float) -> str:
    return f"{'falls' if drop >= 0 else 'rises'} by {100 * abs(drop):.1f}%"


def _recalls(a: ResultRow, b: ResultRow) -> str:
    return f"recalls {a['recalled']} of {len(FACTS)} facts ({b['recalled']} with all kept)"


def _bytes(a: ResultRow, b: ResultRow) -> str:
    if not (a["cache_bytes"] and b["cache_bytes"]):
        return "bytes are not told"
    return f"the cache takes x {a['cache_bytes'] / b['cache_bytes']:.2f} of the bytes"


def _rate(a: ResultRow, b: ResultRow) -> str:
    if not (a["tokens_per_s"] and b["tokens_per_s"]):
        return "-"
    return f"{a['tokens_per_s'] / b['tokens_per_s']:.2f}"
