"""How the value of a setting is read, whether it comes from a flag, a variable or a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class ValueReader(Generic[T_co]):
    """`read` raises ValueError or TypeError for a value that is not what the setting `expects`.

    `flag`: the type by which the command line reads it first.
    """

    read: Callable[[object], T_co]
    expects: str
    flag: type = str


def text(expects: str) -> ValueReader[str]:
    return ValueReader(_text, expects)


def texts(what: str) -> ValueReader[tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ValueError
        return tuple(_text(part) for part in parts)

    return ValueReader(read, f"{what}, separated by commas")


def directory() -> ValueReader[Path]:
    def read(value: object) -> Path:
        return value if isinstance(value, Path) else Path(_text(value)).expanduser().absolute()

    return ValueReader(read, "a directory")


def switch() -> ValueReader[bool]:
    return ValueReader(_switch, "true or false", bool)


def between(low: int, high: int) -> ValueReader[int]:
    def read(value: object) -> int:
        return _within(_whole(value), low, high)

    return ValueReader(read, f"a whole number from {low} to {high}", int)


def size(example: str) -> ValueReader[int]:
    """A number of bytes, which may be written with a unit."""
    return ValueReader(_nbytes, f"a size such as {example}")


def number(low: float, high: float) -> ValueReader[float]:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        return _within(float(value), low, high)

    return ValueReader(read, f"a number from {low:g} to {high:g}", float)


def number_of(*allowed: int, expects: str = "") -> ValueReader[int]:
    def read(value: object) -> int:
        return _one_of(_whole(value), allowed)

    *most, last = map(str, allowed)
    return ValueReader(read, expects or f"{', '.join(most)} or {last}", int)


def word_of(*allowed: str) -> ValueReader[str]:
    def read(value: object) -> str:
        return _one_of(_text(value).lower(), allowed)

    return ValueReader(read, f"one of {', '.join(allowed)}")


_SWITCH: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_N = TypeVar("_N", int, float)
_W = TypeVar("_W", int, str)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _switch(value: object) -> bool:
    return value if isinstance(value, bool) else _SWITCH[_one_of(_text(value).lower(), [*_SWITCH])]


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    return int(value)


def _nbytes(value: object) -> int:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?)?b?", value.strip().lower())
        if match is None:
            raise ValueError
        value = int(float(match[1]) * _UNITS[match[2] or ""])
    return _within(_whole(value), 1, 2**50)


def _within(value: _N, low: _N, high: _N) -> _N:
    if not low <= value <= high:
        raise ValueError
    return value


def _one_of(value: _W, allowed: tuple[_W, ...] | list[_W]) -> _W:
    if value not in allowed:
        raise ValueError
    return value
