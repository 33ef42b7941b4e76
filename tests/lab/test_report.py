"""Reports: the same facts in JSON, Markdown and HTML, with plots for light and dark."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_server import FakeServer

from everwarm.client import ChatClient
from everwarm.lab import plots, report, turns_report
from everwarm.lab.report import Report, Table
from everwarm.lab.result import Result, machine, new, sentence, versions
from everwarm.lab.turns import TurnsPlan, TurnsRun


def write(result: Result, out: Path) -> None:
    report.write(turns_report.turns_report(result, out), out, "turns")


@pytest.fixture(scope="module")
def result() -> Result:
    plan = TurnsPlan(to=3000, turns=6, questions=2)
    made = new("turns", "fake", plan)
    with ChatClient("http://test", transport=FakeServer().transport) as client:
        list(TurnsRun(client, plan, made, lambda depth, suffix: 0.01).measured())
    return made


def test_markdown_and_page_show_every_sample(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path)
    texts = [(tmp_path / f"turns.{kind}").read_text() for kind in ("md", "html")]
    for text in texts:
        assert turns_report.headline(result) in text
        for sample in turns_report.summary(result.rows)["samples"]:
            assert f"{sample['tokens']:,}" in text
        assert "interrupted" not in text


def test_an_interrupted_run_says_so(result: Result, tmp_path: Path) -> None:
    part = Result(benchmark="turns", model="fake", plan=result.plan, rows=result.rows[:2])
    write(part, tmp_path)
    text = (tmp_path / "turns.md").read_text()
    assert "This run was interrupted" in text and "No turn was measured both" in text


def test_a_run_without_any_row_has_a_report(result: Result, tmp_path: Path) -> None:
    write(Result(benchmark="turns", model="fake", plan=result.plan), tmp_path)
    assert (tmp_path / "turns.html").exists()


def test_each_plot_is_made_for_light_and_for_dark(result: Result, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(result, tmp_path)
    for name in ("turns-ttft", "turns-read", "turns-hits"):
        light, dark = ((tmp_path / f"{name}{s}.svg").read_text() for s in ("", "-dark"))
        assert "#ffffff" in light and "#0d1117" in dark
        for suffix in ("", "-dark"):
            assert (tmp_path / f"{name}{suffix}.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "turns.html").read_text()
    assert page.count("<picture>") == 3
    assert not re.search(r'(src|srcset)="(?!data:)', page)


def test_equal_results_make_equal_plots(result: Result, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        plots.save(tmp_path / name, "p", plots.hits(result.rows))
        files.append((tmp_path / name / "p.svg").read_bytes())
    assert files[0] == files[1]


def test_what_a_server_calls_itself_is_text_and_not_markup(tmp_path: Path) -> None:
    made = Report(title="<script>", headline="a & b", facts="", tables=[Table("t", ["<b>"], [])])
    page = report.page(made, tmp_path)
    HTMLParser().feed(page)
    assert "<script>" not in page and "&lt;b&gt;" in page and "a &amp; b" in page


def test_machine_facts_name_processor_and_versions_and_no_host() -> None:
    facts, installed = machine(), versions()
    line = sentence(facts, installed)
    assert f"{facts['cores']} cores" in line and f"everwarm {installed['everwarm']}" in line
    assert set(facts) == {"cpu", "cores", "memory_bytes", "system", "python"}
    json.dumps([facts, installed])
