"""`everwarm bench session` on the terminal: the server, live progress, files."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from everwarm.bench import session_report
from everwarm.bench.client import ChatClient
from everwarm.bench.inside import context_length
from everwarm.bench.session import Plan, SessionRun, new_result
from everwarm.bench.session_report import summary
from everwarm.cli.measured import Target, clock, server, told
from everwarm.config import Settings
from everwarm.errors import ConfigError


def run(target: Target, settings: Settings, plan: Plan, out: Path, *, as_json: bool) -> int:
    """Measure, save after each request, write the report; the exit code."""
    say, path = Console(stderr=True), out / "session.json"
    with (
        server(target, settings, "--forced-replies") as (url, _),
        ChatClient(url, api_key=target.api_key) as client,
    ):
        model = client.models()[0]
        limit = context_length(client, model)
        if limit is not None and plan.to + 1000 > limit:
            raise ConfigError(f"{model} takes {limit:,} tokens; give a smaller --to.")
        session = SessionRun(client, plan, new_result(model, plan))
        code = _follow(session, path, say)
    result = session.result
    result.save(path, summary=summary(result.rows))
    told(say, session_report.headline(result), [path, *session_report.write(result, out)])
    if as_json:
        print(path.read_text(encoding="utf-8"))
    return code


def _follow(session: SessionRun, path: Path, say: Console) -> int:
    """Show and save as it goes. Ctrl-C ends the session and keeps what is measured."""
    result = session.result
    try:
        with say.status("starting") as status:
            for n, _ in enumerate(session.measured(), 1):
                result.save(path, summary=summary(result.rows))
                status.update(_progress(session))
                if n % 20 == 0 and not say.is_terminal:
                    say.print(_progress(session), highlight=False)
    except KeyboardInterrupt:
        say.print("Interrupted; what was measured is kept.")
        return 130
    return 0


def _progress(session: SessionRun) -> str:
    line, plan, took = session.main, session.plan, session.result.seconds
    done = min(0.99, max(0.001, len(line.messages) / plan.messages))
    left = took * (1 / done**1.5 - 1)  # later requests stand deeper and take longer
    return (
        f"{len(line.messages)} of {plan.messages} messages, {line.tokens:,} tokens"
        f" · about {clock(left)} left"
    )
