"""`everwarm bench`: its commands and their flags. What they do lives in modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everwarm.cli.options import settings
from everwarm.errors import ConfigError

bench = typer.Typer(
    help="Measure what a warm conversation saves, on this machine or on recorded work.",
    no_args_is_help=True,
)


@bench.command("make-model")
def make_model(
    shape: Annotated[
        str, typer.Argument(help="llama-2x1, gemma3-4x1 or qwen3_5-4.", show_default=False)
    ],
    directory: Annotated[
        Path, typer.Argument(help="Where to write the model.", show_default=False)
    ],
) -> None:
    """Write a tiny model with random weights, on which 100,000 tokens are read in minutes.

    It has the default model's tokenizer and costs what its shape costs: llama-2x1 has attention
    only, gemma3-4x1 mostly a sliding window, qwen3_5-4 mostly a recurrence. What it writes is
    nonsense.
    """
    from everwarm.cli.models import fetch
    from everwarm.lab import shapes

    if shape not in shapes.SHAPES:
        raise ConfigError(f"There is no shape {shape}; there are {', '.join(shapes.SHAPES)}.")
    print(shapes.make_model(shape, directory, Path(fetch(settings(), None))))


@bench.command()
def floor(
    model: Annotated[str, typer.Argument(help="A model directory, or a Hugging Face id.")],
    at: Annotated[
        list[str],
        typer.Option(
            help="DEPTH:SUFFIX in tokens, such as 100000:40. Repeatable. -: read them, one a line."
        ),
    ],
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each is read; the median counts.")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the model alone: what a server's time to first token cannot go below.

    Behind DEPTH tokens that are already in memory, SUFFIX new ones are read as a server reads them
    (all but the last in one call, then the last), and one token is sampled. No HTTP, no template,
    no tokenizer, no cache.
    """
    from everwarm.lab.commands.floor_command import answer, points_of, run

    if at == ["-"]:
        answer(model)
        return
    run(model, points_of(at), rounds, as_json=as_json)


TargetUrl = Annotated[
    str | None,
    typer.Option(help="A server to measure. Unset: one is started.", show_default=False),
]
TargetKey = Annotated[
    str | None, typer.Option("--api-key", envvar="EVERWARM_API_KEY", help="The server's key.")
]
Model = Annotated[
    str | None,
    typer.Option(
        help="The model directory. Unset: the default model. With --url: the same model, for the "
        "floor.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option(help="Where results and report go.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@bench.command()
def turns(
    to: Annotated[
        int | None,
        typer.Option(
            min=100, help="How long the conversation gets, in tokens.", show_default=False
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Stop within this time. Unset: 10 where --to is not given.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    url: TargetUrl = None,
    api_key: TargetKey = None,
    out: Out = Path("everwarm-bench"),
    resume: Resume = False,
    n_turns: Annotated[
        int, typer.Option("--turns", min=1, help="In how many turns to get to --to.")
    ] = 24,
    questions: Annotated[int, typer.Option(min=1, help="Short questions at a sampled turn.")] = 5,
    reply_tokens: Annotated[int, typer.Option(min=2, help="How long replies may be.")] = 32,
    cold: Annotated[bool, typer.Option(help="Also ask cold, at the sampled turns.")] = True,
    with_floor: Annotated[
        bool,
        typer.Option("--floor/--no-floor", help="Also time the model alone; it is loaded twice."),
    ] = True,
    as_json: ResultAsJson = False,
) -> None:
    """Grow a conversation turn by turn: time to first token warm, cold, and of the model alone.

    Each turn appends code and keeps the reply. At turns 1, 2, 4, 8 and so on, and at the last one,
    short questions are asked warm, and the whole conversation is asked cold: made unique at its
    start, so that nothing of it can be cached. Ctrl-C keeps what was measured.
    """
    from everwarm.lab.commands import measure
    from everwarm.lab.commands.terminal import Order
    from everwarm.lab.turns import TurnsPlan

    limit = minutes if minutes or to else 10.0
    plan = TurnsPlan(
        to=to,
        seconds=limit and 60 * limit,
        turns=n_turns,
        questions=questions,
        reply_tokens=reply_tokens,
        cold=cold,
        floor=with_floor,
    )
    order = Order(settings(), out, as_json, resume, url, model, api_key)
    raise typer.Exit(measure.turns(plan, order))


@bench.command()
def strategies(
    n_turns: Annotated[int, typer.Option("--turns", min=4, help="Turns of the conversation.")] = 8,
    sentences: Annotated[int, typer.Option(min=1, help="Sentences to read at each turn.")] = 2,
    thinking: Annotated[int, typer.Option(min=1, help="Words of reasoning in a reply.")] = 24,
    budget: Annotated[
        int, typer.Option(min=1, help="Tokens of reasoning in the row with a thinking budget.")
    ] = 8,
    window: Annotated[int, typer.Option(min=16, help="Tokens in the rotating window.")] = 256,
    kv_group_size: Annotated[int, typer.Option(help="Numbers that share a scale.")] = 64,
    own_replies: Annotated[
        bool, typer.Option("--own-replies", help="Let the model write its replies, where it can.")
    ] = False,
    model: Model = None,
    out: Out = Path("everwarm-bench"),
    resume: Resume = False,
    as_json: ResultAsJson = False,
) -> None:
    """Hold one conversation with each cache strategy: its cost, its memory, what is recalled.

    The strategies: no cache; warm with the reasoning kept; a thinking budget; the template's
    history, which drops reasoning; a rotating window; a KV cache in 8 and in 4 bits. Eight facts
    are told first and asked for at the end. A server is started for each, side by side where memory
    permits. Ctrl-C keeps what was measured.
    """
    from everwarm.lab.commands import measure
    from everwarm.lab.commands.terminal import Order
    from everwarm.lab.strategies import StrategiesPlan

    plan = StrategiesPlan(
        turns=n_turns,
        sentences=sentences,
        thinking_words=thinking,
        budget=budget,
        window=window,
        group_size=kv_group_size,
        own_replies=own_replies,
    )
    order = Order(settings(), out, as_json, resume, model=model)
    raise typer.Exit(measure.strategies(plan, order))


@bench.command()
def session(
    messages: Annotated[int, typer.Option(min=4, help="Messages of the main conversation.")] = 266,
    to: Annotated[int, typer.Option(min=1000, help="Its length in tokens.")] = 131_000,
    pause: Annotated[float, typer.Option(min=0, help="Seconds before a person's messages.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Equal seeds make equal sessions.")] = 0,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="A recorded session instead: blocks (.json, as for bench policy) or a client's "
            "requests (.jsonl, as for bench replay).",
            show_default=False,
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(min=1, help="Only that many requests of the trace.", show_default=False),
    ] = None,
    model: Model = None,
    url: TargetUrl = None,
    api_key: TargetKey = None,
    disk: Annotated[
        bool, typer.Option("--disk", help="Also keep it on disk, to see what is written.")
    ] = False,
    out: Out = Path("everwarm-bench"),
    resume: Resume = False,
    as_json: ResultAsJson = False,
) -> None:
    """Hold a coding agent's whole session: hit rates, tokens read, time to first token.

    The session is made up from a seed, with the statistics of recorded ones: tool results, pauses,
    replies asked for again, edited messages, side requests and subagents; or it is a recorded one,
    with --trace. Replies are dictated, so a server that is named with --url must have been started
    with --forced-replies. Ctrl-C keeps what was measured. --resume asks again what was measured, so
    that the server is as warm as it was, and measures the rest.
    """
    from everwarm.lab.commands import measure
    from everwarm.lab.commands.terminal import Order
    from everwarm.lab.long_session import SessionPlan

    if disk and url is not None:
        raise ConfigError("--disk is for a server that is started here; --url has its own.")
    order = Order(settings(), out, as_json, resume, url, model, api_key, disk)
    if trace is not None:
        raise typer.Exit(measure.recorded_session(trace, requests, order))
    plan = SessionPlan(messages=messages, to=to, pause_s=pause, seed=seed)
    raise typer.Exit(measure.session(plan, order))
