"""How the value of a setting is read, from whatever source. Each raises ValueError or TypeError."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

HISTORY_MODES = ("verbatim", "template")
LOG_LEVELS = ("debug", "info", "warning", "error")


def text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def path(value: object) -> Path:
    return value if isinstance(value, Path) else Path(text(value)).expanduser().absolute()


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = text(value).lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError


def whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    return int(value)


def between(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = whole(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def nbytes(value: object) -> int:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?)?b?", value.strip().lower())
        if match is None:
            raise ValueError
        value = int(float(match[1]) * _UNITS[match[2] or ""])
    return between(1, 2**50)(value)


def share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    share = float(value)
    if not 0.05 <= share <= 1.0:
        raise ValueError
    return share


def one_of(*allowed: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = whole(value)
        if number not in allowed:
            raise ValueError
        return number

    return read


def level(value: object) -> str:
    word = text(value).lower()
    if word not in LOG_LEVELS:
        raise ValueError
    return word


def history(value: object) -> str:
    mode = text(value).lower()
    if mode not in HISTORY_MODES:
        raise ValueError
    return mode


def texts(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError
    return tuple(text(part) for part in parts)
