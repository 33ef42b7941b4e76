"""`everwarm bench session` on the terminal: the server, live progress, files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.errors import ConfigError
from everwarm.lab import long_session, session_report, traced, traces
from everwarm.lab import result as results
from everwarm.lab.commands import replay_command
from everwarm.lab.commands.target import Target, clock, server, told
from everwarm.lab.inside import context_length
from everwarm.lab.long_session import SessionPlan, SessionRun
from everwarm.lab.result import Result
from everwarm.lab.session_report import summary
from everwarm.lab.traced import Recorded, TracedRun, TracePlan

FORCED = "--forced-replies"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCommand:
    """What to hold the session on, and where its result goes. `disk`: a server of our own keeps
    conversations on disk, in a directory of its own that goes with it."""

    target: Target
    settings: Settings
    out: Path
    resume: bool
    disk: bool
    as_json: bool

    @contextmanager
    def client(self) -> Iterator[ChatClient]:
        """A client of the server; one is started where none is named."""
        with ExitStack() as stack:
            new = stack.enter_context(tempfile.TemporaryDirectory()) if self.disk else None
            home = None if new is None else Path(new)
            url, _ = stack.enter_context(server(self.target, self.settings, FORCED, home=home))
            yield stack.enter_context(ChatClient(url, api_key=self.target.api_key))


def run(held: SessionCommand, plan: SessionPlan) -> int:
    """Measure the session that the plan makes up; the exit code."""
    old = _old(held, SessionPlan)
    if old is not None:
        plan = SessionPlan(**old.plan)
    with held.client() as client:
        model = client.models()[0]
        limit = context_length(client, model)
        if limit is not None and plan.to + 1000 > limit:
            raise ConfigError(f"{model} takes {limit:,} tokens; give a smaller --to.")
        return _follow(SessionRun(client, plan, old or long_session.new_result(model, plan)), held)


def run_trace(held: SessionCommand, trace: Path, requests: int | None) -> int:
    """Hold a recorded session again: one of client requests (.jsonl), or one of blocks (.json)."""
    if trace.suffix == ".jsonl":
        if held.resume or requests is not None:
            raise ConfigError(
                "--resume and --requests do not go with a client's requests (.jsonl)."
            )
        with held.client() as client:
            replay_command.run(client, [trace], [], as_json=held.as_json)
        return 0
    turns: Sequence[Recorded] = next(iter(traces.read([trace]))).turns
    old = _old(held, TracePlan)
    plan = TracePlan(trace=trace.stem, requests=requests or len(turns))
    if old is not None and old.plan["trace"] != plan.trace:
        raise ConfigError(f"The result in --out is one of {old.plan['trace']}, not {plan.trace}.")
    if old is not None:
        plan = TracePlan(**old.plan)
    with held.client() as client:
        model = client.models()[0]
        result = old or traced.new_result(model, plan)
        return _follow(TracedRun(client, turns, plan, result), held)


def _old(held: SessionCommand, plan: type[SessionPlan] | type[TracePlan]) -> Result | None:
    """The interrupted result to go on with, if that is asked for. Raises ConfigError."""
    path = held.out / "session.json"
    if not held.resume:
        results.refuse_to_lose(path, "session")
        return None
    old = results.load(path, "session")
    if old.complete:
        raise ConfigError(f"{path} is complete; there is nothing to go on with.")
    if set(old.plan) != set(plan.__dataclass_fields__):
        raise ConfigError(f"{path} holds another kind of session: with --trace, or without.")
    old.resumed += 1
    return old


def _follow(run: SessionRun | TracedRun, held: SessionCommand) -> int:
    """Show and save as it goes, then write the report. Ctrl-C keeps what is measured."""
    say, path, result, code = Console(stderr=True), held.out / "session.json", run.result, 0
    result.save(path, summary=summary(result.rows))
    try:
        with say.status("starting") as status:
            for n, _ in enumerate(run.measured(), 1):
                result.save(path, summary=summary(result.rows))
                status.update(_progress(run))
                if n % 20 == 0 and not say.is_terminal:
                    say.print(_progress(run), highlight=False)
    except KeyboardInterrupt:
        say.print("Interrupted; what was measured is kept, and --resume goes on with it.")
        code = 130
    result.save(path, summary=summary(result.rows))
    files = [path, *session_report.write(result, held.out)]
    told(say, session_report.headline(result), files)
    if held.as_json:
        print(path.read_text(encoding="utf-8"))
    return code


def _progress(run: SessionRun | TracedRun) -> str:
    said, done = run.progress
    done = min(0.99, max(0.001, done))
    left = run.result.seconds * (1 / done**1.5 - 1)  # later requests stand deeper, take longer
    return f"{said} · about {clock(left)} left"
