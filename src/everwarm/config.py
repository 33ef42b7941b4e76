"""Settings: frozen, checked once at start, from flags > `EVERWARM_*` > TOML > defaults.

A setting is what a person decides; what the program finds out (free memory, a model's limits) is
not here. `None` means: everwarm decides. A setting is written once, as a field of `Settings`: the
flags of `serve`, the variables, the names in the file and `docs/settings.md` come from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from everwarm import values
from everwarm.errors import ConfigError
from everwarm.values import ValueReader


def _setting(
    default: Any, reader: ValueReader[Any], doc: str, flag: str | None = None, **kind: Any
) -> Any:
    """A field with its description and how its value is read.

    `flag`: how `serve` spells it where that is not the field's name; "" where it has no flag.
    """
    about = {"doc": doc, "reader": reader, "flag": flag}
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(metadata=about, **made, **kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a person can set. Build one with `load_settings`, which checks it."""

    model: str | None = _setting(
        None,
        values.text("a directory or a Hugging Face id"),
        "The model to serve. Unset: the default model, fetched once.",
        "MODEL",
    )
    model_id: str | None = _setting(
        None,
        values.text("text"),
        "The name under which the model is served. Unset: the model's own.",
        "",
    )
    host: str = _setting(
        "127.0.0.1",
        values.text("an address"),
        "The address to listen on. Where other computers reach it, callers need an API key.",
    )
    port: int = _setting(8642, values.between(0, 65535), "The port; 0 takes a free one.")
    home: Path = _setting(  # noqa: RUF009 - it returns a field
        lambda: Path.home() / ".everwarm",
        values.directory(),
        "Where everwarm keeps its files: models, config.toml and history.db.",
        "",
    )
    api_key: str | None = _setting(
        None,
        values.text("text"),
        "The key that callers must send. Unset: none, or a new one where other computers can reach "
        "the server.",
        repr=False,
    )
    cache: bool = _setting(
        True,
        values.switch(),
        "Keep conversations warm. Off is for comparisons: every turn is read from its start.",
    )
    memory_budget: int | None = _setting(
        None,
        values.size("8GB or 512MiB"),
        "Bytes of memory for conversations. Unset: 70% of what is free once the model is loaded.",
    )
    mlx_cache_limit: int | None = _setting(
        None,
        values.size("2GB"),
        "Bytes of freed buffers that MLX may keep for later. Unset: a sixteenth of the memory that "
        "Metal recommends, at most 4 GB; without Metal MLX decides. See docs/memory.md.",
    )
    wired_limit: int | None = _setting(
        None,
        values.size("24GB"),
        "With Metal: bytes that stay wired in memory, out of reach of the system. Unset: none. "
        "Panics of the whole computer were reported with it; see docs/memory.md.",
    )
    prefill_step: int | None = _setting(
        None,
        values.between(1, 65536),
        "Tokens read in one step of prefill. Unset: 2048 with a GPU, 512 without.",
    )
    prefill_share: float = _setting(
        0.5,
        values.number(0.05, 1),
        "Part of the engine's time that a prefill may take while other replies are written.",
    )
    decode_width: int | None = _setting(
        None,
        values.between(1, 64),
        "Rows of every decode step: with a fixed number, a reply has the same bits in any company. "
        "Unset: as many as replies are being written, which is quickest.",
    )
    least_tokens_per_s: float = _setting(
        0.0,
        values.number(0, 1000),
        "Where one more reply at once would leave each of them fewer tokens a second than this, it "
        "waits for another to end. 0: none waits.",
    )
    context_length: int | None = _setting(
        None,
        values.between(1, 2**24),
        "The longest sequence in tokens. Unset: what the model was made for.",
    )
    kv_bits: int | None = _setting(
        None,
        values.number_of(8, 4),
        "Keep the KV cache of attention layers in so many bits a number. It saves memory; decoding "
        "gets slower and replies may change. Unset: not quantized.",
    )
    kv_group_size: int = _setting(
        64,
        values.number_of(32, 64, 128),
        "With kv_bits: how many numbers of the KV cache share a scale.",
    )
    quantized_kv_start: int = _setting(
        0,
        values.number_of(
            0,
            expects="0: otherwise one position of the tree, which long and short conversations "
            "share, would have two contents",
        ),
        "With kv_bits: the first token whose KV cache is quantized.",
    )
    max_kv_size: int | None = _setting(
        None,
        values.between(16, 2**24),
        "A rotating window: attention sees the first 4 and the latest tokens, so many in all, and "
        "forgets what lies between. Unset: it sees everything.",
    )
    disk: bool = _setting(
        True,
        values.switch(),
        "Keep conversations on disk, too, where they survive a restart.",
    )
    disk_budget: int | None = _setting(
        None,
        values.size("50GB"),
        "Bytes on disk for conversations. Unset: a quarter of what is free, at most 100 GB.",
    )
    disk_writes: int = _setting(
        200 * 10**9,
        values.size("200GB"),
        "Bytes that may be written to disk in a day; beyond that conversations stay in memory.",
        "",
    )
    history: str = _setting(
        "verbatim",
        values.word_of("verbatim", "template"),
        "How past replies are written into a prompt: verbatim, word for word as the model wrote "
        "them; or as its chat template writes them, which may drop reasoning, so that the cache is "
        "lost from there on.",
    )
    sticky_reminders: bool = _setting(
        False,
        values.switch(),
        "Keep a user's message as it was read where its client later takes a system-reminder block "
        "off its end: the model goes on seeing the reminder, and nothing is read again. `everwarm "
        "launch` turns it on for clients that do this. A request can ask for it, too.",
    )
    remember: bool = _setting(
        True,
        values.switch(),
        "Keep replies in history.db, so that a restarted server knows them word for word.",
    )
    record: bool = _setting(
        True, values.switch(), "List conversations of API clients in the web chat."
    )
    thinking_budget: int | None = _setting(
        None,
        values.between(0, 2**24),
        "Tokens of reasoning after which the model is made to answer, where a request does not "
        "say. Unset: no limit.",
    )
    compact_at: float = _setting(
        0.85,
        values.number(0.05, 1),
        "Part of the context that a session of the web chat may fill before it is summarized and "
        "goes on from the summary. 1: only when asked. A session can have its own.",
    )
    control_tokens_in_text: bool = _setting(
        False,
        values.switch(),
        "Let the texts of control tokens in messages, tools and results, such as <|im_start|>, "
        "become control tokens. Off: what clients write is text, and cannot open a turn.",
        "",
    )
    forced_replies: bool = _setting(
        False,
        values.switch(),
        "Let requests dictate the reply (field everwarm.reply). For benchmarks and tests.",
        "--forced-replies",
    )
    strict: bool = _setting(
        False,
        values.switch(),
        "Refuse what is otherwise accepted without effect and listed in x-everwarm-ignored. For "
        "tests of clients.",
        "--strict",
    )
    max_queue: int = _setting(
        32,
        values.between(1, 65536),
        "Requests that may wait or run; one more is answered with 503.",
        "",
    )
    max_body: int = _setting(
        32 * 2**20, values.size("32MiB"), "The largest request body in bytes.", ""
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), values.texts("names"), "Host names accepted besides this computer's own.", ""
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), values.texts("origins"), "Web origins accepted besides the server's own.", ""
    )
    hang_timeout: int = _setting(
        60,
        values.between(0, 86400),
        "Seconds after which an engine that does not go on is killed and started again. A step may "
        "take longer where late ones were slow, too. 0: never, for debuggers.",
        "",
    )
    log_level: str = _setting(
        "info", values.word_of("debug", "info", "warning", "error"), "How much is logged."
    )


FIELDS: Final = {f.name: f for f in fields(Settings)}


def flag_of(name: str) -> str:
    """How `serve` spells a setting: `--port`, `--disk/--no-disk`; "" where it has no flag."""
    about = FIELDS[name].metadata
    if about["flag"] is not None:
        return str(about["flag"])
    word = name.replace("_", "-")
    return f"--{word}/--no-{word}" if about["reader"].flag is bool else f"--{word}"


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
        name: (value, f"--{name.replace('_', '-')}")
        for name, value in flags.items()
        if value is not None
    }
    merged = _from_env(env) | given
    path = toml_path or _home(merged) / "config.toml"
    merged = _from_toml(path, required=toml_path is not None) | merged
    for name, (_, source) in merged.items():
        if name not in FIELDS:
            raise ConfigError(f"{source} is not a setting; see docs/settings.md.")
    return Settings(**{name: _read(name, *sourced) for name, sourced in merged.items()})


_Sourced = dict[str, tuple[object, str]]


def _from_env(env: Mapping[str, str]) -> _Sourced:
    """Variables of our settings; others that begin with EVERWARM_ belong to somebody else."""
    names = ((name, f"EVERWARM_{name.upper()}") for name in FIELDS)
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
    home = _read("home", *merged["home"]) if "home" in merged else Settings().home
    assert isinstance(home, Path)
    return home


def _read(name: str, value: object, source: str) -> Any:
    reader: ValueReader[Any] = FIELDS[name].metadata["reader"]
    try:
        return reader.read(value)
    except (ValueError, TypeError):
        raise ConfigError(f"{source} must be {reader.expects}.") from None


def nbytes_of(value: object, source: str) -> int:
    """A size such as 8GB in bytes. Raises ConfigError, which names the source."""
    return int(_read("max_body", value, source))
