"""What benchmarks share on the terminal: the server, the progress, the files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from everwarm.cli.child import running_server
from everwarm.cli.models import model_path
from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.errors import ConfigError
from everwarm.lab import plots, report, result
from everwarm.lab.report import Report
from everwarm.lab.result import Result


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asked of a benchmark besides its plan: the server, and where the result goes.

    `url` None: a server is started. `disk`: that server keeps conversations on disk, in a directory
    that is removed with it.
    """

    settings: Settings
    out: Path
    as_json: bool
    resume: bool = False
    url: str | None = None
    model: str | None = None
    api_key: str | None = None
    disk: bool = False

    def started(self, benchmark: str) -> Result | None:
        """The interrupted result to go on with, if that was asked for. Raises ConfigError."""
        path = self.out / f"{benchmark}.json"
        if not self.resume:
            result.refuse_to_lose(path, benchmark)
            return None
        old = result.load(path, benchmark)
        if old.complete:
            raise ConfigError(f"{path} is complete; there is nothing to go on with.")
        old.resumed += 1
        return old

    @contextmanager
    def server(self, *flags: str) -> Iterator[tuple[ChatClient, str | None]]:
        """A client of the server, and the model's directory where it is known.

        A server that is started here has nothing warm, and keeps nothing that outlives it.
        """
        with ExitStack() as stack:
            url, model = self.url, self.model
            if url is None:
                model = model or model_path(self.settings)
                home, given = None, [model, *flags]
                if self.disk:
                    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    given.append("--disk")
                url = stack.enter_context(running_server(given, home))
            yield stack.enter_context(ChatClient(url, api_key=self.api_key)), model


class BenchmarkRun(Protocol):
    """A benchmark under way."""

    @property
    def result(self) -> Result: ...
    @property
    def doing(self) -> str: ...
    def time_left(self) -> float | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What is made of a benchmark's rows.

    `line`: what is printed of a row, if anything; it is told whether somebody watches the progress.
    """

    name: str
    summary: Callable[[Result], dict[str, Any]]
    report: Callable[[Result, Path], Report]
    line: Callable[[Any, dict[str, Any], bool], str | None] = lambda run, row, watched: None
    can_resume: bool = True

    def follow(self, run: BenchmarkRun, rows: Iterator[dict[str, Any]], order: Order) -> int:
        """Show and save each row as it comes, then write the report; the exit code.

        Ctrl-C ends the run and keeps what was measured.
        """
        say, path, code = Console(stderr=True), order.out / f"{self.name}.json", 0
        self._save(run, path)
        try:
            with say.status(_Doing(run)):
                for row in rows:
                    self._save(run, path)
                    if line := self.line(run, row, say.is_terminal):
                        say.print(line, highlight=False)
        except KeyboardInterrupt:
            more = ", and --resume goes on with it" if self.can_resume else ""
            say.print(f"Interrupted; what was measured is kept{more}.")
            code = 130
        self._save(run, path)
        made = self.report(run.result, order.out)
        for text in (made.headline, path, *report.write(made, order.out, self.name)):
            say.print(str(text), highlight=False)
        if not plots.available():
            say.print(plots.MISSING, highlight=False, markup=False)
        if order.as_json:
            print(path.read_text(encoding="utf-8"))
        return code

    def _save(self, run: BenchmarkRun, path: Path) -> None:
        run.result.save(path, **self.summary(run.result))


class _Doing:
    """What is being done and the time that is left, as of now: rich asks at each refresh."""

    def __init__(self, run: BenchmarkRun) -> None:
        self._run = run
        self._rows, self._at = -1, 0.0
        self._left: float | None = None

    def __rich__(self) -> str:
        run, now = self._run, time.monotonic()
        if len(run.result.rows) != self._rows:
            self._rows, self._at, self._left = len(run.result.rows), now, run.time_left()
        if self._left is None:
            return run.doing
        return f"{run.doing} · about {clock(max(0.0, self._left - (now - self._at)))} left"


def clock(seconds: float) -> str:
    """5:07, or 1:05:07."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"
