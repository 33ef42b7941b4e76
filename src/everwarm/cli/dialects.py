"""`everwarm dialects`: how models write, as derived from their chat templates and proved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from everwarm.errors import ConfigError
from everwarm.prompt.dialects import families
from everwarm.prompt.dialects.dialect import CallSyntax, Dialect
from everwarm.text.bare_text import TemplateText

_PART = "<!-- {}: made by `everwarm dialects`, not by hand -->"
_END = "<!-- end -->"


def templates(paths: Iterable[Path]) -> list[Path]:
    """The templates at these paths: files, and all in directories."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"There is no chat template at {path}.")
        found += sorted(path.glob("*.jinja")) if path.is_dir() else [path]
    return found


def table(paths: Sequence[Path]) -> str:
    """One line for each template, as a Markdown table."""
    lines = [
        "| Template | Calls | Reasoning | Answer | A call | Note |",
        "|---|---|---|---|---|---|",
    ]
    for path in paths:
        dialect = families.of(TemplateText(path.read_text(encoding="utf-8")))
        lines.append(_row(path.stem, dialect))
    return "\n".join(lines)


def families_table() -> str:
    """What no template shows, as a Markdown table."""
    lines = ["| Family | Why it cannot be derived |", "|---|---|"]
    lines += [f"| `{f.name}` | {_cell(f.reason)} |" for f in families.FAMILIES]
    return "\n".join(lines)


def page(text: str, paths: Sequence[Path]) -> str:
    """The page with its tables updated."""
    text = _filled(text, "families", families_table())
    return _filled(text, "templates", table(paths)) if paths else text


def _filled(text: str, part: str, body: str) -> str:
    begin = _PART.format(part)
    pattern = re.escape(begin) + r".*?" + re.escape(_END)
    if not re.search(pattern, text, re.DOTALL):
        raise ConfigError(f"The page has no part that begins with {begin} and ends with {_END}.")
    whole = f"{begin}\n\n{body}\n\n{_END}"
    return re.sub(pattern, lambda _: whole, text, flags=re.DOTALL)


def _row(name: str, dialect: Dialect) -> str:
    origin = {"derived": "derived, proved", "corrected": "derived, proved, corrected"}
    call = _code(spelled(dialect.calls[0])) if dialect.calls else ""
    pairs = (_code(" … ".join(p)) if p and p[0] else "" for p in (dialect.reasoning, dialect.text))
    cells = [name, origin.get(dialect.origin, dialect.origin), *pairs, call, _cell(dialect.note)]
    return "| " + " | ".join(cells) + " |"


def spelled(syntax: CallSyntax) -> str:
    """One call as the model writes it."""
    arguments = "{…}"
    if syntax.tags:
        arguments = f"{syntax.tags.open}KEY{syntax.tags.middle}VALUE{syntax.tags.close}"
        arguments = arguments.replace("«key»", "KEY")
    elif syntax.literals:
        own = syntax.literals
        quote = own.quotes[0]
        arguments = f"{own.open}KEY{own.equals}{quote}VALUE{quote}{own.close}"
    call = syntax.call.replace("«name»", "NAME").replace("«arguments»", arguments)
    call = call.replace("«id»", "ID").replace("«n»", "0")
    return f"{syntax.open}{syntax.head}{call}{syntax.tail}{syntax.close}"


def _code(text: str) -> str:
    shown = text.replace("\n", "⏎")
    ticks = "``" if "`" in shown else "`"
    return f"{ticks}{shown}{ticks}".replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
