"""A turn's record as a log line, and without the text of conversations."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from everwarm.events import TurnRecord


def without_words(record: TurnRecord) -> TurnRecord:
    """The record without the text that its miss shows of what was read before."""
    return replace(record, miss=replace(record.miss, before="")) if record.miss else record


def log_line(record: TurnRecord) -> str:
    """A record in one line, without any text of the conversation."""
    shown = {k: v for k, v in asdict(record).items() if v is not None}
    if record.miss:
        shown["miss"] = f"{record.miss.part}: {record.miss.cause}"
    shown["ignored"] = ",".join(record.ignored)
    return " ".join(f"{k}={_short(v)}" for k, v in shown.items())


def _short(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return f'"{text}"' if " " in text else text
