"""What all turns since the start cost and saved, for the dashboard and for `/metrics`.

The sums come from `TurnRecord`s; the engine tells what is in memory and on disk now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from everwarm.events import TurnRecord
from everwarm.job import EngineHealth

TTFT_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
COUNTED: Final = {
    "prompt_tokens": "Tokens of prompts",
    "cached_tokens": "Tokens of prompts that did not have to be read",
    "prefilled_tokens": "Tokens that were read",
    "new_tokens": "Tokens that clients added to conversations",
    "again": "Tokens that were read beyond what was new, turn by turn",
    "unseen_tokens": "Tokens that the model had never read before",
    "completion_tokens": "Tokens that were written",
    "reasoning_tokens": "Tokens of these that were reasoning",
    "prefill_s": "Seconds of reading",
    "decode_s": "Seconds of writing",
    "restore_s": "Seconds of matching and restoring",
    "wait_s": "Seconds until a turn was taken up",
}
"""The fields of a record that are added up, each with its text in `/metrics`."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Totals:
    """Sums over turns. Live: event loop only."""

    turns: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0.0))
    ttft: list[int] = field(default_factory=lambda: [0] * (len(TTFT_S) + 1))
    _metrics: _Metrics = field(default_factory=lambda: _Metrics())

    def add(self, record: TurnRecord) -> None:
        """Count one turn."""
        self.turns += 1
        for name in COUNTED:
            self.sums[name] += getattr(record, name)
        if record.ttft_s is not None:
            self.ttft[sum(record.ttft_s > limit for limit in TTFT_S)] += 1
        self._metrics.add(record)

    def shown(self) -> dict[str, Any]:
        """The sums as the dashboard shows them. A ratio that would divide by zero is null."""
        s = self.sums
        read = s["prefilled_tokens"]
        saved_s = s["cached_tokens"] * s["prefill_s"] / read if read else 0.0
        return {
            "turns": self.turns,
            "hit_rate": _ratio(s["cached_tokens"], s["prompt_tokens"]),
            "tokens_saved": int(s["cached_tokens"]),
            "seconds_saved": max(0.0, saved_s - s["restore_s"]),
            "reprocess_ratio": _ratio(read, s["new_tokens"]),
            "cache_ratio": _ratio(read, s["unseen_tokens"]),
            "again": int(s["again"]),
        }

    def buckets(self) -> list[dict[str, float | None]]:
        """How many turns had their first token within `le` seconds, not within the bound before."""
        return [{"le": le, "count": n} for le, n in zip((*TTFT_S, None), self.ttft, strict=True)]

    def metrics(self, engine: Mapping[str, Any], running: int, health: EngineHealth) -> bytes:
        """The sums in the text format of Prometheus."""
        return self._metrics.text(engine, running, health)


class _Metrics:
    """The same sums in Prometheus' types, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._turns = Counter(
            "everwarm_turns", "Turns that ended, by how", ["finish"], registry=registry
        )
        self._counters = {
            name: Counter(f"everwarm_{_unit(name)}", about, registry=registry)
            for name, about in COUNTED.items()
        }
        self._ttft = Histogram(
            "everwarm_ttft_seconds", "Arrival to first token", buckets=TTFT_S, registry=registry
        )
        self._running = Gauge("everwarm_running_turns", "Turns now", registry=registry)
        self._up = Gauge("everwarm_engine_up", "Whether the engine answers", registry=registry)
        self._restarts = Gauge(
            "everwarm_engine_restarts", "How often the engine was started again", registry=registry
        )
        self._engine = Gauge(
            "everwarm_engine", "What the engine and its cache hold now", ["what"], registry=registry
        )

    def add(self, record: TurnRecord) -> None:
        self._turns.labels(record.finish).inc()
        for name, counter in self._counters.items():
            counter.inc(max(0.0, getattr(record, name)))
        if record.ttft_s is not None:
            self._ttft.observe(record.ttft_s)

    def text(self, engine: Mapping[str, Any], running: int, health: EngineHealth) -> bytes:
        self._running.set(running)
        self._up.set(health.state == "ready" and not health.why)
        self._restarts.set(health.restarts)
        self._engine.clear()
        for what, value in engine.items():
            if isinstance(value, int | float):
                self._engine.labels(what).set(value)
        return generate_latest(self._registry)


def _unit(name: str) -> str:
    if name == "again":
        return "again_tokens"
    return f"{name[:-2]}_seconds" if name.endswith("_s") else name


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
