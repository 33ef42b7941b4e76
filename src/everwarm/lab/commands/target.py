"""What the benchmarks share on the terminal: the server that is measured, and words for time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from everwarm.cli.child import running_server
from everwarm.cli.models import model_path
from everwarm.config import Settings
from everwarm.lab import plots


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is measured: a running server, or one of our own with that model."""

    url: str | None
    model: str | None
    api_key: str | None


@contextmanager
def server(
    target: Target, settings: Settings, *flags: str, home: Path | None = None
) -> Iterator[tuple[str, str | None]]:
    """The server's URL, and the model's directory where it is known.

    A server of our own starts with nothing warm, so it keeps nothing on disk, unless it gets an
    empty home of its own.
    """
    if target.url is not None:
        yield target.url, target.model
        return
    path = target.model or model_path(settings)
    disk = [] if home is None else ["--disk"]
    with running_server([path, *disk, *flags], home) as url:
        yield url, path


def told(say: Console, headline: str, files: list[Path]) -> None:
    """Say what came out and where it lies."""
    say.print(headline, highlight=False)
    for path in files:
        say.print(str(path), highlight=False)
    if not plots.available():
        say.print(plots.MISSING, highlight=False, markup=False)


def clock(seconds: float) -> str:
    """5:07, or 1:05:07."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
