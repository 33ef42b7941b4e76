"""`everwarm bench strategies` on the terminal: a server for each strategy, live progress, files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from everwarm.cli.child import running_server
from everwarm.cli.models import model_path
from everwarm.cli.reasoning import RESPELLED, with_reasoning
from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.errors import ConfigError
from everwarm.lab import result as results
from everwarm.lab import strategies_report
from everwarm.lab.commands.target import clock, told
from everwarm.lab.machine import machine
from everwarm.lab.result import Result
from everwarm.lab.strategies import (
    Serve,
    StrategiesPlan,
    StrategiesRun,
    Strategy,
    new_result,
    strategies,
)
from everwarm.lab.strategies_report import summary


def run(
    model: str | None,
    settings: Settings,
    plan: StrategiesPlan,
    out: Path,
    *,
    resume: bool,
    as_json: bool,
) -> int:
    """Measure, save after each request, write the report; the exit code."""
    path = out / "strategies.json"
    old = results.load(path, "strategies") if resume else None
    if old is None:
        results.refuse_to_lose(path, "strategies")
    elif old.complete:
        raise ConfigError(f"{path} is complete; there is nothing to go on with.")
    else:
        plan = StrategiesPlan(**old.plan)
        old.resumed += 1
    say = Console(stderr=True)
    with ExitStack() as stack:
        source = model or model_path(settings)
        made = Path(stack.enter_context(TemporaryDirectory(prefix="everwarm-")))
        served, respelled = with_reasoning(source, made)
        result = old or new_result(Path(source).name, plan)
        if respelled and RESPELLED not in result.remarks:
            result.remarks.append(RESPELLED)
        together = fits_at_once(served, len(strategies(plan)))
        strategies_run = StrategiesRun(_starter(served), plan, result, together=together)
        code = _follow(strategies_run, path, say)
    told(say, strategies_report.headline(result), [path, *strategies_report.write(result, out)])
    if as_json:
        print(path.read_text(encoding="utf-8"))
    return code


def fits_at_once(model: str, n: int) -> int:
    """How many servers of a model run side by side in half of this machine's memory; at most n."""
    weights = sum(p.stat().st_size for p in Path(model).glob("*.safetensors"))
    memory = machine()["memory_bytes"]
    if not weights or not memory:
        return 1
    return max(1, min(n, int(int(memory) / 2 / (1.5 * weights))))


def _starter(model: str) -> Serve:
    """Starts a server of that model with a strategy's flags, for as long as a block runs."""

    @contextmanager
    def serve(s: Strategy) -> Iterator[ChatClient]:
        flags = [model, "--forced-replies", *s.flags]
        with running_server(flags) as url, ChatClient(url) as client:
            yield client

    return serve


def _follow(run: StrategiesRun, path: Path, say: Console) -> int:
    """Show and save each row as it comes. Ctrl-C ends the run and keeps what is measured."""
    result, code = run.result, 0
    _save(result, path)
    try:
        with say.status("starting the servers") as status:
            for row in run.measured():
                _save(result, path)
                left = run.time_left()
                status.update(run.doing + (f" · about {clock(left)} left" if left else ""))
                if row["kind"] == "refused" or not say.is_terminal:
                    say.print(_line(row), highlight=False)
    except KeyboardInterrupt:
        say.print("Interrupted; what was measured is kept, and --resume goes on with it.")
        code = 130
    _save(result, path)
    return code


def _save(result: Result, path: Path) -> None:
    result.save(path, **summary(result.rows, result.plan))


def _line(row: dict[str, object]) -> str:
    if row["kind"] == "refused":
        return f"{row['strategy']}: refused. {row['why']}"
    if row["kind"] == "recall":
        return f"{row['strategy']}: {row['asked']}: {str(row['said']).strip()!r}"
    told = f"{row['strategy']}: turn {row['turn']}: {row['prompt_tokens']:,} tokens, read "
    return told + f"{row['prefilled_tokens']:,} in {float(str(row['ttft_s'])):.2f} s"
