"""A benchmark's report: one value, written as Markdown and as a single HTML page.

Figures come in a light and a dark version; a page shows the one that suits its reader.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from everwarm.lab import plots
from everwarm.lab.result import Result, sentence

_STYLE: Final = """
:root { color-scheme: light dark; --bg: #ffffff; --fg: #1f2328; --dim: #59636e; --line: #d1d9e0; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #0d1117; --fg: #e6edf3; --dim: #9198a1; --line: #3d444d; } }
body { background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, sans-serif;
  max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.headline { font-size: 1.25rem; }
.dim { color: var(--dim); font-size: 0.9rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: 0.3rem 0.8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column is words, the others are figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot by the name of its files, and what it shows in words."""

    name: str
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a person reads."""

    title: str
    headline: str
    facts: str
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    found: Sequence[str] = ()
    notes: Sequence[str] = field(default=())


def report_on(result: Result, *notes: str, facts: str = "", **shown: Any) -> Report:
    """A report with what each one says: the machine, remarks, and whether the run was whole."""
    first = [] if result.complete else ["This run was interrupted; what is here was measured."]
    return Report(
        facts=f"{result.model} on {sentence(result.machine, result.versions)}{facts}",
        notes=[*first, *result.remarks, *notes],
        **shown,
    )


def effort(result: Result) -> str:
    """How many requests it took, and when."""
    resumed = ", resumed after an interruption." if result.resumed else "."
    asked = f"{len(result.rows)} requests in {result.seconds / 60:.1f} minutes, begun "
    return f"{asked}{result.started}{resumed}"


def missing_plots() -> list[str]:
    """A note where plots cannot be drawn."""
    return [] if plots.available() else [plots.MISSING]


def or_dash(value: Any, spell: Callable[[Any], str]) -> str:
    """A figure in words, or a dash where it was not measured."""
    return "-" if value is None else spell(value)


def seconds(s: float | None) -> str:
    """Milliseconds below a second."""
    return or_dash(s, lambda v: f"{1000 * v:,.1f} ms" if v < 1 else f"{v:,.2f} s")


def write(report: Report, out: Path, stem: str) -> list[Path]:
    """Write `stem.md` and `stem.html` beside the figures' files."""
    pages = {".md": markdown(report), ".html": page(report, out)}
    paths = []
    for suffix, text in pages.items():
        path = out / f"{stem}{suffix}"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def markdown(report: Report) -> str:
    """The report as Markdown; figures are the SVG files beside it."""
    parts = [f"# {report.title}", f"**{report.headline}**", report.facts]
    if report.found:
        parts += ["## Found", "\n".join(f"- {n}" for n in report.found)]
    for table in report.tables:
        parts += [f"## {table.title}", _markdown_table(table)]
    parts += [_markdown_figure(f) for f in report.figures]
    if report.notes:
        parts += ["## Notes", "\n".join(f"- {n}" for n in report.notes)]
    return "\n\n".join(parts) + "\n"


def page(report: Report, out: Path) -> str:
    """The report as one HTML page with everything in it."""
    body = [f"<h1>{_e(report.title)}</h1>", f'<p class="headline">{_e(report.headline)}</p>']
    body.append(f'<p class="dim">{_e(report.facts)}</p>')
    if report.found:
        body.append(f"<h2>Found</h2><ul>{''.join(f'<li>{_e(n)}</li>' for n in report.found)}</ul>")
    for table in report.tables:
        body += [f"<h2>{_e(table.title)}</h2>", f'<div class="wide">{_html_table(table)}</div>']
    body += [_html_figure(f, out) for f in report.figures]
    if report.notes:
        body.append("<h2>Notes</h2>")
        body.append(f'<ul class="dim">{"".join(f"<li>{_e(n)}</li>" for n in report.notes)}</ul>')
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">{view}\n'
        f"<title>{_e(report.title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _markdown_table(table: Table) -> str:
    rule = ["---", *["---:"] * (len(table.head) - 1)]
    lines = [table.head, rule, *table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_figure(f: Figure) -> str:
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{f.name}-dark.svg">'
    return f'<picture>{dark}<img alt="{_e(f.alt)}" src="{f.name}.svg"></picture>'


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{_e(h)}</th>" for h in table.head)
    rows = ("".join(f"<td>{_e(c)}</td>" for c in row) for row in table.rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{r}</tr>' for r in rows)}</table>"


def _html_figure(f: Figure, out: Path) -> str:
    light, dark = (_data_uri(out / f"{f.name}{s}.svg") for s in ("", "-dark"))
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    return f'<p><picture>{source}<img alt="{_e(f.alt)}" src="{light}"></picture></p>'


def _data_uri(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _e(text: str) -> str:
    return html.escape(text)
