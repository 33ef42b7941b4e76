"""Settings: frozen, checked once at start, from flags > `EVERWARM_*` > TOML > defaults.

A setting is what a person decides; what the program finds out (free memory, a model's limits) is
not here. `None` means: everwarm decides. Every field is described in `docs/settings.md`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from everwarm.errors import ConfigError

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a person can set. Build one with `load_settings`, which checks it."""

    model: str | None = None
    model_id: str | None = None
    host: str = "127.0.0.1"
    port: int = 8642
    home: Path = field(default_factory=lambda: Path.home() / ".everwarm")
    api_key: str | None = field(default=None, repr=False)
    cache: bool = True
    memory_budget: int | None = None
    prefill_step: int | None = None
    prefill_share: float = 0.5
    context_length: int | None = None
    max_queue: int = 32
    max_body: int = 32 * 2**20
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    log_level: str = "info"


def load_settings(
    flags: Mapping[str, object],
    env: Mapping[str, str],
    toml_path: Path | None = None,
) -> Settings:
    """Merge the sources and check every value.

    A flag that is `None` counts as not given. Without `toml_path` the file is `config.toml` in the
    home directory, where it may be missing; a file that was named must exist. Raises `ConfigError`.
    """
    given = {
        name: (value, f"--{_dash(name)}") for name, value in flags.items() if value is not None
    }
    merged = _from_env(env) | given
    path = toml_path or _home(merged) / "config.toml"
    merged = _from_toml(path, required=toml_path is not None) | merged
    for name, (_, source) in merged.items():
        if name not in _READERS:
            raise ConfigError(f"{source} is not a setting; see docs/settings.md.")
    values = {name: _read(name, value, source) for name, (value, source) in merged.items()}
    return Settings(**values)  # type: ignore[arg-type]


_Sourced = dict[str, tuple[object, str]]


def _from_env(env: Mapping[str, str]) -> _Sourced:
    """Variables of our settings; others that begin with EVERWARM_ belong to somebody else."""
    names = ((f.name, f"EVERWARM_{f.name.upper()}") for f in fields(Settings))
    return {name: (env[key], key) for name, key in names if env.get(key)}


def _from_toml(path: Path, *, required: bool) -> _Sourced:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise ConfigError(f"The settings file {path} does not exist.") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error}.") from error
    return {k.replace("-", "_"): (v, f"{k} in {path.name}") for k, v in table.items()}


def _home(merged: _Sourced) -> Path:
    if "home" not in merged:
        return Settings().home
    home = _read("home", *merged["home"])
    assert isinstance(home, Path)
    return home


def _read(name: str, value: object, source: str) -> object:
    expected, reader = _READERS[name]
    try:
        return reader(value)
    except (ValueError, TypeError):
        raise ConfigError(f"{source} must be {expected}.") from None


def _dash(name: str) -> str:
    return name.replace("_", "-")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def _path(value: object) -> Path:
    return value if isinstance(value, Path) else Path(_text(value)).expanduser().absolute()


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = _text(value).lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    return int(value)


def _between(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = _number(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def _nbytes(value: object) -> int:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?)?b?", value.strip().lower())
        if match is None:
            raise ValueError
        value = int(float(match[1]) * _UNITS[match[2] or ""])
    return _between(1, 2**50)(value)


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    share = float(value)
    if not 0.05 <= share <= 1.0:
        raise ValueError
    return share


def _level(value: object) -> str:
    level = _text(value).lower()
    if level not in LOG_LEVELS:
        raise ValueError
    return level


def _texts(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError
    return tuple(_text(part) for part in parts)


_READERS: dict[str, tuple[str, Callable[[object], object]]] = {
    "model": ("a directory or a Hugging Face id", _text),
    "model_id": ("text", _text),
    "host": ("an address", _text),
    "port": ("a whole number from 0 to 65535", _between(0, 65535)),
    "home": ("a directory", _path),
    "api_key": ("text", _text),
    "cache": ("true or false", _flag),
    "memory_budget": ("a size such as 8GB or 512MiB", _nbytes),
    "prefill_step": ("a whole number from 1 to 65536", _between(1, 65536)),
    "prefill_share": ("a number from 0.05 to 1", _share),
    "context_length": ("a whole number from 1 to 16777216", _between(1, 2**24)),
    "max_queue": ("a whole number from 1 to 65536", _between(1, 65536)),
    "max_body": ("a size such as 32MiB", _nbytes),
    "allowed_hosts": ("names, separated by commas", _texts),
    "allowed_origins": ("origins, separated by commas", _texts),
    "log_level": ("one of debug, info, warning, error", _level),
}
