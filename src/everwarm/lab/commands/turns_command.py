"""`everwarm bench turns` on the terminal: the server, the floor, live progress, files."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.errors import ConfigError
from everwarm.lab import result as results
from everwarm.lab import turns_report
from everwarm.lab.commands.floor_command import FloorProcess
from everwarm.lab.commands.target import Target, clock, server, told
from everwarm.lab.inside import context_length
from everwarm.lab.result import Result
from everwarm.lab.turns import TurnsPlan, TurnsRun, new_result, summary


def run(
    target: Target,
    settings: Settings,
    plan: TurnsPlan,
    out: Path,
    *,
    resume: bool,
    as_json: bool,
) -> int:
    """Measure, save after each turn, write the report; the exit code."""
    path = out / "turns.json"
    old = results.load(path, "turns") if resume else None
    if old is None:
        results.refuse_to_lose(path, "turns")
    elif old.complete:
        raise ConfigError(f"{path} is complete; there is nothing to go on with.")
    else:
        plan = TurnsPlan(**old.plan)
        old.resumed += 1
    say = Console(stderr=True)
    with ExitStack() as stack:
        url, model = stack.enter_context(server(target, settings))
        client = stack.enter_context(ChatClient(url, api_key=target.api_key))
        name = client.models()[0]
        floor = FloorProcess(model) if plan.floor and model is not None else None
        if floor is not None:
            stack.enter_context(floor)
        result = old or new_result(name, plan)
        turns = TurnsRun(client, plan, result, floor, context_length(client, name))
        code = _follow(turns, path, say)
    told(say, turns_report.headline(result), [path, *turns_report.write(result, out)])
    if as_json:
        print(path.read_text(encoding="utf-8"))
    return code


def _follow(turns: TurnsRun, path: Path, say: Console) -> int:
    """Show and save each row as it comes. Ctrl-C ends the run and keeps what is measured."""
    result = turns.result
    result.save(path, summary=summary(result.rows))
    try:
        with say.status(_Doing(turns)):
            for row in turns.measured():
                result.save(path, summary=summary(result.rows))
                if line := _line(result, row):
                    say.print(line, highlight=False)
    except KeyboardInterrupt:
        say.print("Interrupted; what was measured is kept, and --resume goes on with it.")
        code = 130
    else:
        code = 0
    result.save(path, summary=summary(result.rows))
    return code


class _Doing:
    """What is being done and the time that is left, as of now: rich asks at each refresh."""

    def __init__(self, turns: TurnsRun) -> None:
        self._turns = turns
        self._rows, self._at = -1, 0.0
        self._left: float | None = None

    def __rich__(self) -> str:
        turns, now = self._turns, time.monotonic()
        if len(turns.result.rows) != self._rows:
            self._rows, self._at, self._left = len(turns.result.rows), now, turns.time_left()
        if self._left is None:
            return turns.doing
        return f"{turns.doing} · about {clock(max(0.0, self._left - (now - self._at)))} left"


def _line(result: Result, row: dict[str, object]) -> str | None:
    """A sampled turn once it is whole; where nobody watches, a line for each turn that grew."""
    if row["kind"] == "grow":
        told = f"turn {row['turn']}: {row['prompt_tokens']:,} tokens, read "
        told += f"{row['prefilled_tokens']:,} in {float(str(row['ttft_s'])):.2f} s"
        return None if sys.stderr.isatty() else told
    sample = summary(result.rows)["samples"][-1]
    last = "cold" if result.plan["cold"] else "question"
    if row["kind"] != last or (
        last == "question" and _asked(result, row) < result.plan["questions"]
    ):
        return None
    parts = [f"{sample['tokens']:>8,} tokens", f"warm {sample['warm_s']:.3f} s"]
    if sample["floor_s"] is not None:
        parts.append(f"floor {sample['floor_s']:.3f} s")
    if sample["cold_s"] is not None:
        parts += [f"cold {sample['cold_s']:.2f} s", f"{sample['ratio']:,.0f}x"]
    return " · ".join(parts)


def _asked(result: Result, row: dict[str, object]) -> int:
    return sum(r["kind"] == "question" and r["turn"] == row["turn"] for r in result.rows)
