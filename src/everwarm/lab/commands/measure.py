"""Benchmarks that are followed on the terminal: the server, the run and the report of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from everwarm.cli.child import running_server
from everwarm.cli.models import model_path
from everwarm.cli.reasoning import RESPELLED, with_reasoning
from everwarm.client import ChatClient
from everwarm.errors import ConfigError
from everwarm.lab import (
    compare,
    parallel_report,
    result,
    session_report,
    strategies_report,
    traces,
    turns_report,
)
from everwarm.lab.asked_server import AskedServer
from everwarm.lab.commands import replay_command
from everwarm.lab.commands.floor_command import FloorProcess
from everwarm.lab.commands.terminal import Benchmark, Order
from everwarm.lab.compare import ComparePlan, CompareRun
from everwarm.lab.day import DayPlan, DayRun
from everwarm.lab.inside import context_length
from everwarm.lab.long_session import SessionPlan, SessionRun
from everwarm.lab.parallel import ParallelPlan, ParallelRun
from everwarm.lab.result import Result, machine
from everwarm.lab.strategies import Serve, StrategiesPlan, StrategiesRun, Strategy
from everwarm.lab.traced import TracedRun, TracePlan
from everwarm.lab.turns import TurnsPlan, TurnsRun

FORCED: Final = "--forced-replies"


def _session_line(run: SessionRun | TracedRun, row: dict[str, Any], watched: bool) -> str | None:
    return None if watched or len(run.result.rows) % 20 else run.doing


TURNS = Benchmark(
    name="turns",
    summary=lambda r: {"summary": turns_report.summary(r.rows)},
    report=turns_report.turns_report,
    line=turns_report.line,
)
STRATEGIES = Benchmark(
    name="strategies",
    summary=lambda r: strategies_report.summary(r.rows, r.plan),
    report=strategies_report.strategies_report,
    line=strategies_report.line,
)
SESSION = Benchmark(
    name="session",
    summary=lambda r: {"summary": session_report.summary(r.rows)},
    report=session_report.session_report,
    line=_session_line,
)
COMPARE = Benchmark(
    name="compare",
    summary=lambda r: {"summary": compare.summary(r.rows)},
    report=compare.compare_report,
    can_resume=False,
)

PARALLEL = Benchmark(
    name="parallel",
    summary=lambda r: {"summary": parallel_report.parallel_summary(r.rows)},
    report=parallel_report.parallel_report,
    line=parallel_report.parallel_line,
    can_resume=False,
)


def turns(plan: TurnsPlan, order: Order) -> int:
    """Grow a conversation; the exit code."""
    old = order.started("turns")
    plan = plan if old is None else TurnsPlan(**old.plan)
    with ExitStack() as stack:
        client, model = stack.enter_context(order.server())
        name = client.models()[0]
        floor = FloorProcess(model) if plan.floor and model is not None else None
        if floor is not None:
            stack.enter_context(floor)
        made = old or result.new("turns", name, plan)
        run = TurnsRun(client, plan, made, floor, context_length(client, name))
        return TURNS.follow(run, run.measured(), order)


def strategies(plan: StrategiesPlan, order: Order) -> int:
    """Hold one conversation under each strategy; the exit code."""
    old = order.started("strategies")
    plan = plan if old is None else StrategiesPlan(**old.plan)
    source = order.model or model_path(order.settings)
    with TemporaryDirectory(prefix="everwarm-") as folder:
        served, respelled = with_reasoning(source, Path(folder))
        made = old or result.new("strategies", Path(source).name, plan)
        if respelled and RESPELLED not in made.remarks:
            made.remarks.append(RESPELLED)
        run = StrategiesRun(_starter(served), plan, made, together=n_together(served))
        return STRATEGIES.follow(run, run.measured(), order)


def n_together(model: str) -> int:
    """How many servers of a model run side by side in half of this machine's memory."""
    weights = sum(p.stat().st_size for p in Path(model).glob("*.safetensors"))
    memory = machine()["memory_bytes"]
    if not weights or not memory:
        return 1
    return max(1, int(int(memory) / 2 / (1.5 * weights)))


def _starter(model: str) -> Serve:
    """Starts a server of that model with a strategy's flags, for as long as a block runs."""

    @contextmanager
    def serve(s: Strategy) -> Iterator[ChatClient]:
        with running_server([model, FORCED, *s.flags]) as url, ChatClient(url) as client:
            yield client

    return serve


def session(plan: SessionPlan, order: Order) -> int:
    """Hold the session that the plan makes up; the exit code."""
    old = _started_session(order, SessionPlan)
    plan = plan if old is None else SessionPlan(**old.plan)
    with order.server(FORCED) as (client, _):
        model = client.models()[0]
        limit = context_length(client, model)
        if limit is not None and plan.to + 1000 > limit:
            raise ConfigError(f"{model} takes {limit:,} tokens; give a smaller --to.")
        run = SessionRun(client, plan, old or result.new("session", model, plan))
        return SESSION.follow(run, run.measured(), order)


def recorded_session(trace: Path, requests: int | None, order: Order) -> int:
    """Hold a recorded session again: one of client requests (.jsonl), or one of blocks (.json)."""
    if trace.suffix == ".jsonl":
        if order.resume or requests is not None:
            raise ConfigError(
                "--resume and --requests do not go with a client's requests (.jsonl)."
            )
        with order.server(FORCED) as (client, _):
            replay_command.run(client, [trace], [], as_json=order.as_json)
        return 0
    turns = next(traces.read([trace])).turns
    old = _started_session(order, TracePlan)
    plan = TracePlan(trace=trace.stem, requests=requests or len(turns))
    if old is not None and old.plan["trace"] != plan.trace:
        raise ConfigError(f"The result in --out is one of {old.plan['trace']}, not {plan.trace}.")
    plan = plan if old is None else TracePlan(**old.plan)
    with order.server(FORCED) as (client, _):
        made = old or result.new("session", client.models()[0], plan)
        run = TracedRun(client, turns, plan, made)
        return SESSION.follow(run, run.measured(), order)


def _started_session(order: Order, plan: type[SessionPlan] | type[TracePlan]) -> Result | None:
    old = order.started("session")
    if old is not None and set(old.plan) != set(plan.__dataclass_fields__):
        raise ConfigError(
            f"{order.out / 'session.json'} holds another kind of session: with --trace, or without."
        )
    return old


def comparison(
    urls: dict[str, str],
    models: dict[str, str],
    plan: ComparePlan,
    order: Order,
    *,
    restarted: bool,
) -> int:
    """Play one workload on several servers; the exit code.

    `restarted`: only ask the last prompt of the run in `out` again. `models` names the model where
    a server takes another name than the first it lists.
    """
    old = result.load(order.out / "compare.json", "compare") if restarted else None
    if old is not None:
        plan = ComparePlan(**{f: old.plan[f] for f in ComparePlan.__dataclass_fields__})
    with ExitStack() as stack:
        clients, chosen = _opened(stack, urls, models, order)
        run = CompareRun(clients, chosen, plan, old or compare.new_result(chosen, plan))
        return COMPARE.follow(run, run.restarted() if restarted else run.measured(), order)


def at_once(
    urls: dict[str, str],
    models: dict[str, str],
    plan: ParallelPlan | DayPlan,
    order: Order,
    *,
    ends: Sequence[int] = (),
    restarts: Mapping[str, str] | None = None,
) -> int:
    """Hold several sessions at once on several servers; the exit code.

    `models` as above, `ends` as in `AskedServer`. `restarts`: the command that restarts a server.
    """
    restarts = restarts or {}
    if unknown := [n for n in restarts if n not in urls]:
        raise ConfigError(f"--restart names {unknown[0]}, which is not among the servers.")
    order.started("parallel")
    with ExitStack() as stack:
        clients, chosen = _opened(stack, urls, models, order)
        servers = [
            AskedServer(name=n, client=c, model=chosen[n], ends=ends, restart=restarts.get(n, ""))
            for n, c in clients.items()
        ]
        made = parallel_report.new_parallel(chosen, plan)
        run = (
            DayRun(servers, plan, made)
            if isinstance(plan, DayPlan)
            else ParallelRun(servers, plan, made)
        )
        return PARALLEL.follow(run, run.measured(), order)


def _opened(
    stack: ExitStack, urls: dict[str, str], models: dict[str, str], order: Order
) -> tuple[dict[str, ChatClient], dict[str, str]]:
    """A client of each server, and what it calls the model. Raises ConfigError."""
    if unknown := [n for n in models if n not in urls]:
        raise ConfigError(f"--model-name names {unknown[0]}, which is not among the servers.")
    clients = {
        n: stack.enter_context(ChatClient(u, api_key=order.api_key)) for n, u in urls.items()
    }
    return clients, {n: models.get(n) or c.models()[0] for n, c in clients.items()}


def named(servers: Sequence[str]) -> dict[str, str]:
    """URLs by name, of NAME=URL texts. Raises ConfigError."""
    out: dict[str, str] = {}
    for text in servers:
        name, equals, url = text.partition("=")
        if not (name and equals and url.startswith(("http://", "https://"))):
            raise ConfigError(
                f"A server is NAME=URL, such as mine=http://127.0.0.1:8642; not {text}."
            )
        if name in out:
            raise ConfigError(f"There are two servers called {name}.")
        out[name] = url
    return out


def widths(text: str) -> tuple[int, ...]:
    """How many sessions at once, of a text such as 1,2,4. Raises ConfigError."""
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and 1 <= int(part) <= 64 for part in found):
        raise ConfigError(f"--sessions takes numbers from 1 to 64, such as 1,2,4,8; not {text}.")
    return tuple(int(part) for part in found)


def token_ids(text: str) -> tuple[int, ...]:
    """The ids of a text such as 2,0. Raises ConfigError."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in found):
        raise ConfigError(f"--end-ids takes ids of tokens, such as 2,0; not {text}.")
    return tuple(int(part) for part in found)
