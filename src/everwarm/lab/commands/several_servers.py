"""The flags of `bench compare` and `bench parallel`, which ask several running servers in turns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everwarm.cli.options import settings
from everwarm.lab.commands.bench import Out, ResultAsJson, TargetKey

Servers = Annotated[
    list[str], typer.Argument(help="Running servers, NAME=URL each.", show_default=False)
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model-name",
        help="NAME=MODEL: what a server calls the model. Unset: the first it lists.",
        show_default=False,
    ),
]
EndIds = Annotated[
    str,
    typer.Option(
        help="Ids of the tokens that end a reply, such as 2,0. They are forbidden, so that "
        "replies get the same length on every server.",
        show_default=False,
    ),
]
Day = Annotated[
    bool,
    typer.Option(
        "--day",
        help="Instead: a day of agents: questions, loops of tool calls, a subagent "
        "each, a restart in the middle, a reply asked for again and an edit.",
    ),
]
RestartCommands = Annotated[
    list[str] | None,
    typer.Option(
        help="With --day: NAME=COMMAND, a shell command that restarts a server and returns.",
        show_default=False,
    ),
]


def add_to(bench: typer.Typer) -> None:
    """Put these commands behind the others of `everwarm bench`."""
    for command in (compare, parallel):
        bench.command()(command)


def compare(
    servers: Servers,
    tokens: Annotated[int, typer.Option(min=200, help="About how long conversations are.")] = 4000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each scenario is played.")] = 3,
    model_name: ModelNames = None,
    restarted: Annotated[
        bool,
        typer.Option(
            "--restarted",
            help="You have restarted the servers: ask the last prompt of the run in --out again.",
        ),
    ] = False,
    api_key: TargetKey = None,
    out: Out = Path("everwarm-bench"),
    as_json: ResultAsJson = False,
) -> None:
    """Hold the same conversations with several running servers, in turns, and compare them.

    A growing chat, a reply asked for again, edited messages, a shared system prompt, two agents in
    turns, a tool loop, a client that leaves and asks again; with --restarted, what is left after a
    restart. It starts no server: docs/compare.md has recipes.
    Figures stand beside those of the first server.
    """
    from everwarm.lab.commands import measure
    from everwarm.lab.commands.terminal import Order
    from everwarm.lab.compare import ComparePlan

    models = dict(text.partition("=")[::2] for text in model_name or [])
    plan = ComparePlan(tokens=tokens, rounds=rounds)
    order = Order(settings(), out, as_json, api_key=api_key)
    urls = measure.named(servers)
    raise typer.Exit(measure.comparison(urls, models, plan, order, restarted=restarted))


def parallel(
    servers: Servers,
    sessions: Annotated[
        str, typer.Option(help="How many sessions at once, one number after the other.")
    ] = "1,2,4,8",
    turns: Annotated[int, typer.Option(min=1, help="Turns of each session.")] = 2,
    context: Annotated[int, typer.Option(min=30, help="Tokens a session begins with.")] = 150,
    reply_tokens: Annotated[int, typer.Option(min=2, help="Tokens of each reply.")] = 32,
    end_ids: EndIds = "",
    long: Annotated[
        int, typer.Option(min=0, help="Tokens of one long prompt beside the others; 0: none.")
    ] = 6000,
    rounds: Annotated[int, typer.Option(min=1, help="How often all of it is measured.")] = 3,
    day: Day = False,
    agents: Annotated[int, typer.Option(min=1, max=64, help="With --day: how many.")] = 4,
    restart: RestartCommands = None,
    model_name: ModelNames = None,
    api_key: TargetKey = None,
    out: Out = Path("everwarm-bench"),
    as_json: ResultAsJson = False,
) -> None:
    """Hold several sessions at once with running servers, in turns, and compare them.

    Tokens a second over all sessions, first tokens, the longest silence of a reply; one long
    conversation among short ones; a short question while a long prompt is read. It starts no
    server: docs/compare.md has recipes.

    everwarm bench parallel mine=http://127.0.0.1:8642 other=http://127.0.0.1:8080
    """
    from everwarm.lab.commands import measure
    from everwarm.lab.commands.terminal import Order
    from everwarm.lab.day import DayPlan
    from everwarm.lab.parallel import ParallelPlan

    plan = (
        DayPlan(
            agents=agents, turns=turns, context=context, reply_tokens=reply_tokens, rounds=rounds
        )
        if day
        else ParallelPlan(
            sessions=measure.widths(sessions), turns=turns, context=context,
            reply_tokens=reply_tokens, long=long, rounds=rounds,
        )
    )  # fmt: skip
    models, restarts = (
        dict(text.partition("=")[::2] for text in given or []) for given in (model_name, restart)
    )
    order = Order(settings(), out, as_json, api_key=api_key)
    urls, ends = measure.named(servers), measure.token_ids(end_ids)
    raise typer.Exit(measure.at_once(urls, models, plan, order, ends=ends, restarts=restarts))
