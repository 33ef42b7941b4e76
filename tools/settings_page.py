"""Make docs/settings.md anew from the fields of the settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from everwarm.config import FIELDS, flag_of

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """\
# Settings

Made by `python tools/settings_page.py`; a test holds it to the code.

A setting comes from the first of these that has it:

1. a flag of `everwarm serve`,
2. a variable `EVERWARM_*`,
3. the TOML file: `config.toml` in the home directory, or the one named with `--config`,
4. its default.

In the file a name may be written with `-` or `_`. Sizes may be written `8GB` (powers of 1000) or
`8GiB` (powers of 1024). A value that cannot be used, or a name in the file that is no setting, ends
the program with one sentence and exit code 2.

| Setting | Flag of `serve` | Variable | Default | What it is | Value |
|---|---|---|---|---|---|
"""
END = """
`EVERWARM_BLAS=reference` is not a setting of the server but of the process: on Linux it keeps MLX
on the BLAS it was built with, which is slower and gives the same bits everywhere.
"""


def rows() -> Iterator[str]:
    for name, setting in FIELDS.items():
        about, spelled = setting.metadata, flag_of(name).split("/")
        cells = [
            f"`{name}`",
            _code(spelled[-1 if setting.default is True else 0]),
            f"`EVERWARM_{name.upper()}`",
            "`~/.everwarm`" if name == "home" else _default(setting.default),
            about["doc"].replace("|", "\\|"),
            about["reader"].expects,
        ]
        yield f"| {' | '.join(cells)} |\n"


def _default(value: object) -> str:
    if value is None or value == ():
        return ""
    return _code(str(value).lower() if isinstance(value, bool) else str(value))


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def page() -> str:
    return HEAD + "".join(rows()) + END


if __name__ == "__main__":
    PAGE.write_text(page())
