"""What the strategies' figures say, in words, each beside the published finding. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from everwarm.bench.report import seconds
from everwarm.bench.strategies import FACTS, Plan

Line = dict[str, Any]
Lines = dict[str, Line]
CLOSE: Final = 0.02
"""Two drops, or two shares, that differ by less say nothing."""


def findings(lines: Sequence[Line], plan: Plan) -> list[tuple[str, str]]:
    """Pairs of what was found here and what was published; only what was measured to its end."""
    whole = {x["strategy"]: x for x in lines if x.get("recalled") is not None}
    asked: list[tuple[tuple[str, ...], Callable[[Lines, Plan], tuple[str, str]]]] = [
        (("none", "warm"), _warmth),
        (("warm", "budget"), _budget),
        (("warm", "template"), _template),
        (("warm", "window"), _window),
        (("warm", "kv8"), _eight),
        (("warm", "kv4"), _four),
    ]
    return [say(whole, plan) for needs, say in asked if all(k in whole for k in needs)]


def _warmth(x: Lines, plan: Plan) -> tuple[str, str]:
    cold, warm = x["none"], x["warm"]
    ratio = cold["ttft_s"] / warm["ttft_s"]
    same = "the same" if cold["recalled"] == warm["recalled"] else "not the same"
    return (
        f"A warm turn begins after {seconds(warm['ttft_s'])}, one without a cache after "
        f"{seconds(cold['ttft_s'])}: {ratio:,.0f} times as long. Recall is {same} "
        f"({warm['recalled']} and {cold['recalled']} of {len(FACTS)}).",
        "71.9 s without a cache, 0.74 s with one: 97 times, on a conversation of 88K tokens",
    )


def _budget(x: Lines, plan: Plan) -> tuple[str, str]:
    kept, cut = x["warm"], x["budget"]
    less = 1 - cut["conversation_tokens"] / kept["conversation_tokens"]
    return (
        f"With {plan.budget} tokens of reasoning the conversation ends {100 * less:.0f}% shorter; "
        f"{_drops(cut, kept)}; {_recalls(cut, kept)}.",
        "64% shorter (32K of 88K), tokens/s falls by 7.4% and not by 18%, quality 5.0 of 5",
    )


def _template(x: Lines, plan: Plan) -> tuple[str, str]:
    kept, dropped = x["warm"], x["template"]
    less = 1 - dropped["conversation_tokens"] / kept["conversation_tokens"]
    if less < CLOSE:
        how = "The template drops no reasoning of this model, so it is the same conversation"
    else:
        how = f"Dropping the reasoning leaves the conversation {100 * less:.0f}% shorter"
    longer = dropped["ttft_s"] / kept["ttft_s"]
    word = "unlike there, a turn begins later" if longer > 1 + CLOSE else "a turn begins no later"
    return (
        f"{how}; {dropped['prefilled_tokens']:,} tokens are read and not "
        f"{kept['prefilled_tokens']:,}, since each reply is read again without its reasoning; "
        f"{word} (x {longer:.2f}); {_drops(dropped, kept)}; {_recalls(dropped, kept)}.",
        "70% shorter (26.5K of 88K), TTFT x 0.89, tokens/s falls by 4.9% and not by 18%, replies "
        "31% longer and inconsistent",
    )


def _window(x: Lines, plan: Plan) -> tuple[str, str]:
    whole, window = x["warm"], x["window"]
    told = ""
    if whole["cache_bytes"] and window["cache_bytes"]:
        times = window["cache_bytes"] / whole["cache_bytes"]
        told = f"; the cache takes x {times:.2f} of the bytes, since a window cannot be cut and " \
               "rests as checkpoints"  # fmt: skip
    return (
        f"Behind {whole['conversation_tokens']:,} tokens a window of {plan.window:,} "
        f"{_recalls(window, whole)}; {_drops(window, whole)}{told}.",
        "a window of 8,192 recalled 4 of 8; tokens/s falls by 2.4% and not by 7.4%",
    )


def _eight(x: Lines, plan: Plan) -> tuple[str, str]:
    return (
        f"8 bits: {_bytes(x['kv8'], x['warm'])}; {_drops(x['kv8'], x['warm'])}; tokens/s is x "
        f"{_rate(x['kv8'], x['warm'])}; {_recalls(x['kv8'], x['warm'])}.",
        "tokens/s falls by 16.5% and not by 7.4%, x 0.95 on average; quality 4.64 and not 5.0",
    )


def _four(x: Lines, plan: Plan) -> tuple[str, str]:
    return (
        f"4 bits: {_bytes(x['kv4'], x['warm'])}; {_drops(x['kv4'], x['warm'])}; tokens/s is x "
        f"{_rate(x['kv4'], x['warm'])}; {_recalls(x['kv4'], x['warm'])}.",
        "nothing",
    )


def _drops(a: Line, b: Line) -> str:
    if a["drop"] is None or b["drop"] is None:
        return "how tokens/s changes was not measured in so few turns"
    return f"tokens/s {_falls(a['drop'])} ({_falls(b['drop'])} with all kept)"


def _falls(drop: float) -> str:
    return f"{'falls' if drop >= 0 else 'rises'} by {100 * abs(drop):.1f}%"


def _recalls(a: Line, b: Line) -> str:
    return f"recalls {a['recalled']} of {len(FACTS)} facts ({b['recalled']} with all kept)"


def _bytes(a: Line, b: Line) -> str:
    if not (a["cache_bytes"] and b["cache_bytes"]):
        return "bytes are not told"
    return f"the cache takes x {a['cache_bytes'] / b['cache_bytes']:.2f} of the bytes"


def _rate(a: Line, b: Line) -> str:
    if not (a["tokens_per_s"] and b["tokens_per_s"]):
        return "-"
    return f"{a['tokens_per_s'] / b['tokens_per_s']:.2f}"
