"""Settings: frozen, checked once at start, from flags > `EVERWARM_*` > TOML > defaults.

A setting is what a person decides; what the program finds out (free memory, a model's limits) is
not here. `None` means: everwarm decides. A field's description lives in its metadata; the help of
`serve` and `docs/settings.md` are made from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from everwarm import values
from everwarm.errors import ConfigError


def _setting(default: Any, doc: str, expects: str, flag: str = "", **kind: Any) -> Any:
    """A field with its description, what its value must be, and the flag of `serve`, if any."""
    about = {"doc": doc, "expects": expects, "flag": flag}
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(metadata=about, **made, **kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a person can set. Build one with `load_settings`, which checks it."""

    model: str | None = _setting(
        None,
        "The model to serve. Unset: the default model, fetched once.",
        "a directory or a Hugging Face id",
        "MODEL",
    )
    model_id: str | None = _setting(
        None, "The name under which the model is served. Unset: the model's own.", "text"
    )
    host: str = _setting(
        "127.0.0.1",
        "The address to listen on. Beyond this computer only together with an API key.",
        "an address",
        "--host",
    )
    port: int = _setting(
        8642, "The port; 0 takes a free one.", "a whole number from 0 to 65535", "--port"
    )
    home: Path = _setting(  # noqa: RUF009 - it returns a field
        lambda: Path.home() / ".everwarm",
        "Where everwarm keeps its files: models, config.toml and history.db.",
        "a directory",
    )
    api_key: str | None = _setting(
        None,
        "The key that callers must send. Unset: none, "
        "or a new one where others can reach the server.",
        "text",
        "--api-key",
        repr=False,
    )
    cache: bool = _setting(
        True,
        "Whether conversations stay warm. Off is for comparisons: every turn is read anew.",
        "true or false",
        "--no-cache",
    )
    memory_budget: int | None = _setting(
        None,
        "Bytes for conversations. Unset: 70% of what is free once the model is loaded.",
        "a size such as 8GB or 512MiB",
        "--memory-budget",
    )
    prefill_step: int | None = _setting(
        None,
        "Tokens read in one step of prefill. Unset: 2048 with a GPU, 512 without.",
        "a whole number from 1 to 65536",
        "--prefill-step",
    )
    prefill_share: float = _setting(
        0.5,
        "Part of the engine's time that a prefill may take while other replies are written.",
        "a number from 0.05 to 1",
        "--prefill-share",
    )
    context_length: int | None = _setting(
        None,
        "The longest sequence in tokens. Unset: what the model was made for.",
        "a whole number from 1 to 16777216",
        "--context-length",
    )
    kv_bits: int | None = _setting(
        None,
        "Keep the attention layers' rows in so many bits. It saves memory; writing gets slower and "
        "replies may change. Unset: whole.",
        "8 or 4",
        "--kv-bits",
    )
    kv_group_size: int = _setting(
        64,
        "With kv_bits: so many numbers of a row share a scale.",
        "32, 64 or 128",
        "--kv-group-size",
    )
    quantized_kv_start: int = _setting(
        0,
        "With kv_bits: the first token whose row is kept so.",
        "0: were long conversations kept otherwise than short ones, one position of the tree that "
        "they share would have two contents",
        "--quantized-kv-start",
    )
    max_kv_size: int | None = _setting(
        None,
        "A rotating window: attention sees the first 4 and the latest tokens, so many in all, and "
        "forgets what lies between. Unset: it sees everything.",
        "a whole number from 16 to 16777216",
        "--max-kv-size",
    )
    disk: bool = _setting(
        True,
        "Whether conversations are also kept on disk, where they survive a restart.",
        "true or false",
        "--no-disk",
    )
    disk_budget: int | None = _setting(
        None,
        "Bytes on disk for conversations. Unset: a quarter of what is free, at most 100 GB.",
        "a size such as 50GB",
        "--disk-budget",
    )
    disk_writes: int = _setting(
        200 * 10**9,
        "Bytes that may be written to disk in a day; beyond that conversations stay in memory.",
        "a size such as 200GB",
    )
    history: str = _setting(
        "verbatim",
        "How past replies are written into a prompt: word for word as the model wrote them, or as "
        "its chat template writes them, which may drop reasoning and so loses the cache there.",
        f"one of {', '.join(values.HISTORY_MODES)}",
        "--history",
    )
    sticky_reminders: bool = _setting(
        False,
        "Whether a user's message stays as it was read where its client later takes a "
        "system-reminder block off its end: the model goes on seeing the reminder, and nothing is "
        "read again. `everwarm launch` turns it on for clients that do this. A request can say it "
        "too.",
        "true or false",
        "--sticky-reminders",
    )
    remember: bool = _setting(
        True,
        "Whether replies are kept in history.db, so that a restarted server knows them word for "
        "word.",
        "true or false",
        "--no-remember",
    )
    record: bool = _setting(
        True, "Whether clients' conversations become sessions too.", "true or false", "--no-record"
    )
    thinking_budget: int | None = _setting(
        None,
        "Tokens of reasoning after which a model is made to answer, where a request does not say. "
        "Unset: none.",
        "a whole number from 0 to 16777216",
        "--thinking-budget",
    )
    compact_at: float = _setting(
        0.85,
        "Part of the context that a session may fill before it is summed up behind a turn and goes "
        "on from the summary. 1: only when asked. A session can have its own.",
        "a number from 0.05 to 1",
        "--compact-at",
    )
    control_tokens_in_text: bool = _setting(
        False,
        "Let the texts of control tokens in messages, tools and results, such as <|im_start|>, "
        "become control tokens. Off: what clients write is text, and cannot open a turn.",
        "true or false",
    )
    forced_replies: bool = _setting(
        False,
        "Let requests dictate the reply (field everwarm.reply). For benchmarks and tests.",
        "true or false",
        "--forced-replies",
    )
    strict: bool = _setting(
        False,
        "Refuse what is otherwise accepted without effect and listed in x-everwarm-ignored. For "
        "tests of clients.",
        "true or false",
        "--strict",
    )
    max_queue: int = _setting(
        32,
        "Requests that may wait or run; one more is answered with 503.",
        "a whole number from 1 to 65536",
    )
    max_body: int = _setting(
        32 * 2**20, "The largest request body in bytes.", "a size such as 32MiB"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Host names accepted besides this computer's own.", "names, separated by commas"
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), "Web origins accepted besides the server's own.", "origins, separated by commas"
    )
    log_level: str = _setting(
        "info", "How much is logged.", f"one of {', '.join(values.LOG_LEVELS)}", "--log-level"
    )


def describe(name: str) -> str:
    """What a setting is, in one or two sentences: the text of help and reference alike."""
    return str(_ABOUT[name]["doc"])


def reference() -> str:
    """All settings as a Markdown table: the body of `docs/settings.md`."""
    rows = ["| Setting | Flag of `serve` | Variable | Default | What it is | Value |"]
    rows.append("|---|---|---|---|---|---|")
    for f in fields(Settings):
        flag = f"`{f.metadata['flag']}`" if f.metadata["flag"] else ""
        default = _spell(f.name, f.default)
        about = f"{f.metadata['doc']} | {f.metadata['expects']}"
        rows.append(f"| `{f.name}` | {flag} | `EVERWARM_{f.name.upper()}` | {default} | {about} |")
    return "\n".join(rows) + "\n"


def _spell(name: str, default: object) -> str:
    if name == "home":
        return "`~/.everwarm`"
    if default is None or default == ():
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


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
    try:
        return _READERS[name](value)
    except (ValueError, TypeError):
        raise ConfigError(f"{source} must be {_ABOUT[name]['expects']}.") from None


def nbytes_of(value: object, source: str) -> int:
    """A size such as 8GB in bytes. Raises ConfigError, which names the source."""
    return int(str(_read("max_body", value, source)))


def _dash(name: str) -> str:
    return name.replace("_", "-")


_ABOUT = {f.name: f.metadata for f in fields(Settings)}
_READERS: dict[str, Callable[[object], object]] = {
    "model": values.text,
    "model_id": values.text,
    "host": values.text,
    "port": values.between(0, 65535),
    "home": values.path,
    "api_key": values.text,
    "cache": values.flag,
    "control_tokens_in_text": values.flag,
    "forced_replies": values.flag,
    "strict": values.flag,
    "disk": values.flag,
    "memory_budget": values.nbytes,
    "disk_budget": values.nbytes,
    "disk_writes": values.nbytes,
    "prefill_step": values.between(1, 65536),
    "prefill_share": values.share,
    "context_length": values.between(1, 2**24),
    "kv_bits": values.one_of(8, 4),
    "kv_group_size": values.one_of(32, 64, 128),
    "quantized_kv_start": values.one_of(0),
    "max_kv_size": values.between(16, 2**24),
    "history": values.history,
    "sticky_reminders": values.flag,
    "remember": values.flag,
    "thinking_budget": values.between(0, 2**24),
    "record": values.flag,
    "compact_at": values.share,
    "max_queue": values.between(1, 65536),
    "max_body": values.nbytes,
    "allowed_hosts": values.texts,
    "allowed_origins": values.texts,
    "log_level": values.level,
}
