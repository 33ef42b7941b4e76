"""The page of dialects is made from what is found, and says it truly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dialect_samples import SAMPLES
from notations import NOTATIONS, chat
from typer.testing import CliRunner

from everwarm.cli.app import app
from everwarm.cli.dialects import families_table
from everwarm.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A directory of this suite's own templates."""
    own = {n: s.template for n, s in SAMPLES.items()} | NOTATIONS | {"no calls": chat("")}
    for name, template in own.items():
        (tmp_path / f"{name}.jinja").write_text(template, encoding="utf-8")
    return tmp_path


def test_each_template_has_a_line_that_says_what_was_found(shelf: Path) -> None:
    said = CliRunner().invoke(app, ["dialects", str(shelf)])
    assert said.exit_code == 0, said.output
    rows = {
        cells[1].strip(): cells
        for line in said.output.splitlines()[2:]
        if (cells := re.split(r"(?<!\\)\|", line))
    }
    assert len(rows) == len(SAMPLES) + len(NOTATIONS) + 1
    assert all(rows[n][2].strip() == "derived, proved" for n in NOTATIONS)
    assert rows["no calls"][2].strip() == "none"
    assert "writes no tool calls" in rows["no calls"][6]
    assert rows["llama_3"][2].strip() == "derived, proved, corrected"
    assert rows["harmony"][2].strip() == "known"
    assert "<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>" in rows["glm_4"][5]
    assert "<think> … </think>" in rows["glm_4"][3]


def test_a_page_is_made_anew_between_its_marks(shelf: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "dialects.md").read_text(encoding="utf-8"), encoding="utf-8")
    before = page.read_text(encoding="utf-8")
    assert CliRunner().invoke(app, ["dialects", str(shelf), "--page", str(page)]).exit_code == 0
    made = page.read_text(encoding="utf-8")
    assert "| no calls | none |" in made and "## How replies are read" in made
    assert made.split("<!--")[0] == before.split("<!--")[0]


def test_the_page_lists_the_families_as_they_are() -> None:
    assert families_table() in (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8")


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["dialects", str(tmp_path / "nothing.jinja")])
    assert isinstance(said.exception, ConfigError)
    assert "nothing.jinja" in said.exception.message
