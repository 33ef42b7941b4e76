"""`everwarm bench policy`: the table, the JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from everwarm.cli import app
from everwarm.errors import ConfigError
from everwarm.lab import synthetic
from everwarm.lab.simulate import VARIANTS


def bench(*args: str) -> str:
    done = CliRunner().invoke(app, ["bench", "policy", *args], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_a_trace_is_replayed_under_every_policy(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(synthetic.trace(1, requests=12, scale=0.1)))
    report = json.loads(bench(str(tmp_path), "--json", "--budget", "1GiB"))
    assert report["sessions"] == ["one"]
    assert report["nbytes"] == {"token": 20 * 1024, "checkpoint": 63_000_000, "budget": 1 << 30}
    assert [p["policy"] for p in report["policies"]] == [v.name for v in VARIANTS]
    assert {p["requests"] for p in report["policies"]} == {12}
    ideal = report["policies"][0]
    assert ideal["prefilled_tokens"] == ideal["unseen_tokens"]
    assert ideal["prompt_tokens"] == ideal["cached_tokens"] + ideal["prefilled_tokens"]


def test_without_traces_sessions_are_made_up_and_a_table_is_printed() -> None:
    table = bench("--synthetic", "1", "--seed", "5")
    assert "60 requests" in table
    assert "16, by coverage (everwarm)" in table


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--history", "none"], "--history must be verbatim or template"),
        (["--budget", "much"], "--budget must be"),
        (["none.json"], r"none\.json does not exist"),
    ],
)
def test_what_cannot_be_read_is_named(flags: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        bench(*flags)
