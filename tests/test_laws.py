"""The laws of this code base, checked by reading it."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "everwarm"
FILES = sorted(SRC.rglob("*.py"))
VOCABULARY = {"errors", "messages", "request", "events", "tokens", "job", "codec", "replies"}
CORE = {
    "wire", "prompt", "text", "cache", "engine", "models", "history", "server", "link",
    "supervisor",
}  # fmt: skip
MAY = {
    "wire": VOCABULARY,
    "prompt": VOCABULARY,
    "cache": VOCABULARY,
    "text": VOCABULARY | {"models"},
    "engine": VOCABULARY | {"cache", "config", "text", "models", "link"},
    "link": VOCABULARY | {"config"},
    "supervisor": VOCABULARY | {"link", "config"},
    "models": VOCABULARY,
    "history": VOCABULARY,
    "server": VOCABULARY | {"wire", "prompt", "history", "config"},
    "chat": VOCABULARY | {"wire", "prompt", "history", "server"},
    "client": VOCABULARY,
    "testing": VOCABULARY | {"cache"},
    "lab": VOCABULARY | {"cache", "engine", "client", "cli", "config", "testing"},
    "config": {"errors", "values"},
    "values": set(),
}
"""What a room may import besides itself. `serve.py`, `compose.py` and `cli/` may import all."""
ONLY_IN: dict[str, set[str]] = {
    "mlx": {"engine", "lab"},
    "mlx_lm": {"engine", "lab"},
    "matplotlib": {"lab"},
    "pydantic": {"wire", "chat"},
    "fastapi": set(),
    "starlette": {"server", "chat"},
    "uvicorn": {"server", "serve"},
    "xxhash": {"cache"},
    "jinja2": {"text"},
    "transformers": {"text"},
    "prometheus_client": {"server"},
    "llguidance": {"engine"},
    "msgspec": {"link"},
    "sqlite3": {"cache", "history", "chat"},
}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "everwarm":
            yield from (f"everwarm.{a.name}" for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def home(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def wrong_imports(own: str, tree: ast.AST) -> Iterator[str]:
    """What a file of this room imports and may not."""
    for name in imports(tree):
        top, *rest = name.split(".")
        if own not in ONLY_IN.get(top, {own}):
            yield f"{own} imports {name}"
        if top == "everwarm" and rest:
            allowed = VOCABULARY if own in VOCABULARY else MAY.get(own)
            if allowed is not None and rest[0] not in allowed | {own, "__version__"}:
                yield f"{own} imports {name}"


def test_of_the_lab_only_what_makes_and_times_models_imports_mlx() -> None:
    found = {
        path.name
        for path in FILES
        if home(path) == "lab"
        and any(n.split(".")[0] in ("mlx", "mlx_lm") for n in imports(ast.parse(path.read_text())))
    }
    assert found == {"floor.py", "shapes.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_one_way(path: Path) -> None:
    assert [*wrong_imports(home(path), ast.parse(path.read_text()))] == []


def test_a_wrong_import_is_found() -> None:
    planted = ast.parse("import mlx.core\nfrom everwarm.chat import session\nimport sqlite3")
    assert [*wrong_imports("server", planted)] == [
        "server imports mlx.core",
        "server imports everwarm.chat",
        "server imports sqlite3",
    ]


ONE_FORM = {
    "Body": {"anthropic", "openai_chat", "openai_completions", "openai_responses"},
    "AnyTool": {"anthropic", "openai_chat", "openai_responses_tools"},
    "AnyMessage": {"anthropic_messages", "openai_chat_messages"},
    "Encoder": {
        "anthropic_stream", "openai_chat_stream", "openai_completions_stream",
        "openai_responses_stream",
    },
}  # fmt: skip
"""Each wire format spells these for itself, so that its files read like its siblings'."""


def defined(tree: ast.Module) -> Iterator[str]:
    """Classes and aliases at a module's top. An underscore in front makes no other name."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name.lstrip("_")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = target.id.lstrip("_") if isinstance(target, ast.Name) else ""
            if name[:1].isupper() and not name.isupper():
                yield name


def homes_of(files: Iterable[Path], src: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in files:
        own = str(path.relative_to(src))
        for name in defined(ast.parse(path.read_text())):
            siblings = {f"wire/{file}.py" for file in ONE_FORM.get(name, ())}
            found.setdefault(name, set()).add("wire/" if own in siblings else own)
    return found


def test_a_name_has_one_home() -> None:
    assert {n: h for n, h in homes_of(FILES, SRC).items() if len(h) > 1} == {}


def test_a_second_home_is_found(tmp_path: Path) -> None:
    for name, text in (("a.py", "class Plan: ..."), ("b.py", "_Plan = int")):
        (tmp_path / name).write_text(text)
    assert homes_of(sorted(tmp_path.glob("*.py")), tmp_path) == {"Plan": {"a.py", "b.py"}}


MOST_LINES = 300
LONGER = {
    "cache/cache.py": "the one door of the tree: each method is a verb of a lease's life",
    "cache/disk/blob.py": "one file format, read and written side by side",
    "cache/disk/disk_store.py": "one directory, and the order of all changes in it",
    "cache/disk/tier.py": "the one door of the disk",
    "config.py": "every setting, each written once",
    "lab/compare.py": "one benchmark, its questions and its table",
    "prompt/dialects/call_reader.py": "one grammar of calls with its streaming reader",
    "testing.py": "the oracle: state, cache operations and a job that drives them",
}
"""Files that may have up to 400 lines, each with its reason."""
ANNEXES = ("prompt/dialects/", "prompt/grammars/", "cache/disk/")
MOST_LINES_OF_CORE = 22_640
"""Only a capability that comes may raise it. The aim is 10,000.

11,745 were counted the same way before memory became a promise, dialects were derived, every field
of the clients got a class, the engine moved into a process of its own, behind a front that stays
up, the memory of the machine was asked before a job begins, and what a killed engine had read is
on disk, as its replies are in sessions.
"""


def too_large(path: Path, most: int) -> Iterator[str]:
    """What is too large in a file, and module-level state that is rebound."""
    text = path.read_text()
    if (n := text.count("\n")) > most:
        yield f"{n} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Global):
            yield f"global at line {node.lineno}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n = (node.end_lineno or 0) - node.lineno + 1
            if n > 60:
                yield f"{node.name}: {n} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_files_and_functions_are_small(path: Path) -> None:
    most = 400 if str(path.relative_to(SRC)) in LONGER else MOST_LINES
    assert [*too_large(path, most)] == []


def test_exceptions_are_needed() -> None:
    assert [n for n in LONGER if (SRC / n).read_text().count("\n") <= MOST_LINES] == []


def test_what_is_too_large_is_found(tmp_path: Path) -> None:
    long = tmp_path / "long.py"
    long.write_text("def f():\n" + "    global x\n" + "    pass\n" * 299)
    found = [*too_large(long, MOST_LINES)]
    assert sorted(found) == ["301 lines", "f: 301 lines", "global at line 2"]


def core() -> Iterator[Path]:
    """The files of the core: its rooms and the vocabulary, without the annexes."""
    for path in FILES:
        name = str(path.relative_to(SRC))
        if home(path) in CORE | VOCABULARY and not name.startswith(ANNEXES):
            yield path


def test_the_core_stays_small() -> None:
    assert sum(path.read_text().count("\n") for path in core()) <= MOST_LINES_OF_CORE


def broad_excepts() -> Iterator[str]:
    for path in FILES:
        for f in ast.walk(ast.parse(path.read_text())):
            if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                isinstance(n, ast.ExceptHandler)
                and (n.type is None or ast.unparse(n.type) in {"Exception", "BaseException"})
                for n in ast.walk(f)
            ):
                yield f"{path.relative_to(ROOT)}:{f.name}"


def test_broad_excepts_are_listed() -> None:
    page = ROOT / "ARCHITECTURE.md"
    text = page.read_text() if page.is_file() else ""
    if not text:
        pytest.skip("no ARCHITECTURE.md")
    _, _, section = text.partition("## Broad excepts")
    listed = set(re.findall(r"[\w/.]+\.py:\w+", section.split("\n## ")[0]))
    assert set(broad_excepts()) == listed


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/internals.md"])
def test_a_page_names_files_that_are_there(page: str) -> None:
    named = re.findall(r"`((?:\w+/)*\w+\.(?:py|js))`", (ROOT / page).read_text())
    homes = (SRC, ROOT, SRC / "chat" / "web")
    assert [n for n in named if not any((home / n).is_file() for home in homes)] == []


def test_every_setting_is_documented() -> None:
    from everwarm.config import Settings

    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(p.read_text() for p in pages if p.is_file())
    names = [f.name for f in dataclasses.fields(Settings)]
    assert [n for n in names if n not in text and n.replace("_", "-") not in text] == []
