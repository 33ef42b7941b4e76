"""A turn's record for the log and for people: in one line, and without anybody's words."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from everwarm.config import Settings
from everwarm.events import SCAFFOLD, Miss, TurnRecord
from everwarm.tokens import Prompt


def without_words(record: TurnRecord) -> TurnRecord:
    """A miss may show what another conversation said instead."""
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


def near_scaffold(prompt: Prompt, record: TurnRecord) -> Miss | None:
    """Where all messages were warm, and only what opens the reply was read once more.

    Layers that cannot be cut go back to a checkpoint, and none is worth its bytes so near the end.
    """
    last = max((m.at for m in prompt.marks if m.kind != "prompt"), default=0)
    end = min((m.at for m in prompt.marks if m.kind == "prompt" and m.at >= last), default=None)
    if end is None or record.cached_tokens < end:
        return None
    cause = f"{record.prefilled_tokens} tokens to the nearest checkpoint: what opens the reply"
    return Miss(at=record.cached_tokens, part=SCAFFOLD, cause=cause)


def lost(record: TurnRecord, settings: Settings, known: int | None) -> Miss:
    """A miss where the text is what it was, up to `known` tokens of what was read before."""
    at, part = record.cached_tokens, "cache"
    if known is not None and known <= record.cached_tokens:
        part = "branch"
        cause = "what was said before stands behind other messages now, where it was never read"
    elif not settings.cache:
        cause = "the cache is off (--no-cache)"
    elif record.cached_tokens:
        cause = "nothing nearer can be restored: it was let go, or lies between two checkpoints"
    else:
        cause = "it was let go for other conversations, or the server was started since"
    return Miss(at=at, part=part, cause=cause)
