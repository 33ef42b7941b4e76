"""The flags of `bench replay` and `bench policy`, which work on recorded sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from everwarm.cli.options import DEFAULT_URL, AsJson, Key, Url

if TYPE_CHECKING:
    from everwarm.lab.traces import TracedHistory


def add_to(bench: typer.Typer) -> None:
    """Put these commands behind the others of `everwarm bench`."""
    for command in (replay, policy):
        bench.command()(command)


def replay(
    traces: Annotated[list[Path], typer.Argument(help="Recordings, one client each.")],
    without: Annotated[
        list[str] | None,
        typer.Option(help="A phase to leave out of a second sum. May be repeated."),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send recorded requests of clients again, and count what is read for each.

    For a server started with --forced-replies: it answers what the recording has. A recording is
    JSON lines of phase, path, body and reply (text, thinking, calls).

    cache: tokens read for each token that the model had never read. reprocess: tokens read for each
    token that the client added; 1.00 is perfect. again: tokens read beyond what was new, request
    by request.

    A request that is refused is named, the rest goes on, and the exit code is 1.
    """
    from everwarm.client import ChatClient
    from everwarm.lab.commands.replay_command import run

    with ChatClient(url, api_key=api_key) as client:
        code = run(client, traces, without or (), as_json=as_json)
    raise typer.Exit(code)


def policy(
    traces: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Trace files, or directories of them. None: made-up sessions.",
            show_default=False,
        ),
    ] = None,
    synthetic: Annotated[
        int, typer.Option(min=1, help="How many sessions to make up where no traces are given.")
    ] = 11,
    seed: Annotated[int, typer.Option(help="Where making them up begins.")] = 0,
    kind: Annotated[
        str,
        typer.Option(
            help="What made-up sessions do most: mixed, long, loop, edits, head, agents or "
            "compaction."
        ),
    ] = "mixed",
    history: Annotated[
        str,
        typer.Option(
            help="How replies come back in the next prompt: verbatim, as this server does it, or "
            "template: always changed."
        ),
    ] = "verbatim",
    together: Annotated[
        int, typer.Option(min=1, help="This many sessions share a cache and take turns.")
    ] = 1,
    budget: Annotated[
        str | None, typer.Option(help="Bytes the cache may hold, such as 16GiB. Unset: no limit.")
    ] = None,
    token_bytes: Annotated[
        str, typer.Option(help="What a token takes in layers that can be cut.")
    ] = "20KiB",
    checkpoint_bytes: Annotated[
        str, typer.Option(help="What one checkpoint of the other layers takes.")
    ] = "63MB",
    as_json: AsJson = False,
) -> None:
    """Replay recorded sessions through the real cache, and compare rules for its checkpoints.

    No model runs: a state is literal token ids, and what is counted is tokens. A trace is one JSON
    file a session: requests[], each with in and out (tokens) and hash_ids, one id for each whole
    block of 64 tokens of the prompt; a subagent is an entry with requests of its own. The sizes
    default to those of a hybrid model with 35B parameters; try --token-bytes 80KiB
    --checkpoint-bytes 436MB for a large model with sliding windows.

    hit: prompt tokens that were not read. near-full: requests that read more than half of their
    prompt, the first of each agent left out; lost: those of them where more than half had been
    read before. refused: requests that can never fit the budget, counted as read whole. reprocess:
    tokens read for each token that was never read before; 1.00 is perfect.
    """
    from everwarm.lab.commands.policy_command import Trial, run, sizes_of

    sizes = sizes_of(token_bytes, checkpoint_bytes, budget)
    trial = Trial(traces or [], cast("TracedHistory", history), together, sizes)
    run(trial, n_synthetic=synthetic, seed=seed, kind=kind, as_json=as_json)
