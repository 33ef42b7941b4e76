"""Settings come from flags, environment, TOML and defaults, in that order, and are checked."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest

from everwarm.config import FIELDS, Settings, load_settings
from everwarm.errors import ConfigError

ROOT = Path(__file__).parent.parent


def load(tmp_path: Path, toml: str = "", env: dict[str, str] | None = None, **flags: object):
    (tmp_path / "config.toml").write_text(toml)
    return load_settings(flags, {"EVERWARM_HOME": str(tmp_path), **(env or {})})


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    toml = "port = 1\nmax-queue = 1\nprefill_step = 1\n"
    env = {"EVERWARM_PORT": "2", "EVERWARM_MAX_QUEUE": "2"}
    made = load(tmp_path, toml, env, port=3, host=None)
    assert (made.port, made.max_queue, made.prefill_step) == (3, 2, 1)
    assert made.host == Settings().host


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memory_budget", "8GB", 8 * 10**9),
        ("memory_budget", "512 MiB", 512 * 2**20),
        ("memory_budget", "1.5g", 1_500_000_000),
        ("cache", "off", False),
        ("allowed_hosts", "a.local, b.local", ("a.local", "b.local")),
        ("prefill_share", "0.25", 0.25),
        ("compact_at", "0.5", 0.5),
        ("log_level", "DEBUG", "debug"),
    ],
)
def test_text_becomes_a_value(tmp_path: Path, name: str, text: str, value: object) -> None:
    made = load(tmp_path, env={f"EVERWARM_{name.upper()}": text})
    assert getattr(made, name) == value


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("port", "65536"),
        ("port", True),
        ("memory_budget", "lots"),
        ("memory_budget", "0"),
        ("prefill_share", "nan"),
        ("prefill_share", 0),
        ("compact_at", 1.1),
        ("log_level", "loud"),
        ("host", ""),
        ("cache", "perhaps"),
        ("allowed_hosts", [1]),
    ],
)
def test_a_bad_value_names_its_flag(tmp_path: Path, name: str, bad: object) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be"):
        load(tmp_path, **{name: bad})


def test_a_bad_value_names_its_variable_or_its_line_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EVERWARM_PORT must be"):
        load(tmp_path, env={"EVERWARM_PORT": "x"})
    with pytest.raises(ConfigError, match=r"port in config\.toml must be"):
        load(tmp_path, 'port = "x"')


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prot in config\.toml is not a setting"):
        load(tmp_path, "prot = 1")


def test_a_file_that_was_named_must_exist_and_be_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings({}, {}, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, "= 1")


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Settings(api_key="secret"))


def test_every_setting_has_a_description() -> None:
    assert [n for n, f in FIELDS.items() if not f.metadata["doc"].endswith(".")] == []


def test_the_reference_page_is_made_from_the_settings() -> None:
    made = run_path(str(ROOT / "tools" / "settings_page.py"))["page"]()
    assert made == (ROOT / "docs" / "settings.md").read_text(), "run tools/settings_page.py"
