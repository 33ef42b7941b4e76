"""The commands and their flags. What a command does lives in a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everwarm.cli.options import DEFAULT_URL, AsJson, Key, Url, settings, takes_settings
from everwarm.lab.commands.bench import bench

app = typer.Typer(
    help="A local model server on MLX whose conversations stay warm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(bench, name="bench")


@app.command()
@takes_settings
def serve(
    *,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings.", show_default=False)
    ] = None,
    **flags: object,
) -> None:
    """Serve a model to clients of OpenAI's and Anthropic's APIs.

    These are chat completions, completions and responses of OpenAI, and messages of Anthropic. The
    web chat and the dashboard are at the same address.
    """
    chosen = settings(config, **flags)
    from everwarm.cli.models import model_path

    path = model_path(chosen)
    from everwarm.serve import serve as run

    raise typer.Exit(run(chosen, path))


@app.command()
def chat(
    url: Url = DEFAULT_URL,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    model: Annotated[str | None, typer.Option(help="The served model's id.")] = None,
    api_key: Key = None,
) -> None:
    """Talk to a running server in the terminal."""
    from everwarm.cli.chat import Chat
    from everwarm.client import ChatClient

    with ChatClient(url, api_key=api_key) as client:
        Chat(client, model=model or client.models()[0], system=system).run()


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Hold one conversation twice, warm and cold, and show what each turn cost."""
    from everwarm.cli.demo import run

    run(settings(), as_json=as_json)


@app.command()
def ps(url: Url = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False) -> None:
    """Show what a running server serves and does."""
    from everwarm.cli.status import show
    from everwarm.client import ChatClient

    with ChatClient(url, api_key=api_key) as client:
        show(client, as_json=as_json)


@app.command()
def dialects(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Chat templates, or directories of them (`*.jinja`)."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Make this page's tables anew instead of printing one.")
    ] = None,
) -> None:
    """Show what is found of chat templates: how their models write reasoning and calls."""
    from everwarm.cli.dialects import page as made
    from everwarm.cli.dialects import table, templates

    found = templates(paths or [])
    if page is not None:
        page.write_text(made(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    else:
        print(table(found))


@app.command()
def why(
    turn: Annotated[
        str | None,
        typer.Argument(help="A turn's id or its end. Unset: the latest with a reason."),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show why a turn read more than was new in it."""
    from everwarm.cli.why import show
    from everwarm.client import ChatClient

    with ChatClient(url, api_key=api_key) as client:
        show(client, turn, as_json=as_json)


@app.command()
def launch(
    client: Annotated[
        str,
        typer.Argument(
            help="opencode, openclaw, claude, codex, pi, qwen, cline, continue or aider."
        ),
    ],
    args: Annotated[
        list[str] | None,
        typer.Argument(
            help="What the client itself is given; put -- before it.", metavar="-- ARGS"
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", help="Print it as a shell script, and start nothing.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Start a coding agent on the running server.

    It gets the server's address, its model and context length, timeouts that outlast a long
    prefill, and what keeps its prompts from changing: by variables, flags and files in a temporary
    directory. Nothing of yours is written. Its own flags go behind --:

    everwarm launch claude

    everwarm launch codex -- exec "Look around."

    --print shows all of it, with the API key, to copy from. The same for each client is in
    examples/.
    """
    from everwarm.cli import launch as it
    from everwarm.client import ChatClient

    it.client_of(client)
    with ChatClient(url, api_key=api_key) as http:
        at = it.served(http, api_key)
    if show:
        print(it.script(client, at, args or ()), end="")
    else:
        raise typer.Exit(it.run(client, at, args or ()))


@app.command()
def pull(
    model: Annotated[
        str | None, typer.Argument(help="A Hugging Face id. Unset: the default model.")
    ] = None,
) -> None:
    """Fetch a model, so that serving it starts at once."""
    from everwarm.cli.models import fetch

    print(fetch(settings(), model))


@app.command()
def ls(as_json: AsJson = False) -> None:
    """List the models on this computer."""
    from everwarm.cli.models import show

    show(settings(), as_json=as_json)


@bench.command()
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

    cache: tokens read for each that the model had never read. reprocess: tokens read for each that
    the client added; 1.00 is perfect. again: tokens read beyond what was new, request by request.

    A request that is refused is named, the rest goes on, and the exit code is 1.
    """
    from everwarm.client import ChatClient
    from everwarm.lab.commands.replay_command import run

    with ChatClient(url, api_key=api_key) as client:
        code = run(client, traces, without or (), as_json=as_json)
    raise typer.Exit(code)


@bench.command()
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
    from everwarm.lab.commands.policy_command import Trial, run

    trial = Trial.of(
        traces or [], history=history, together=together, budget=budget,
        token_bytes=token_bytes, checkpoint_bytes=checkpoint_bytes,
    )  # fmt: skip
    run(trial, n_synthetic=synthetic, seed=seed, kind=kind, as_json=as_json)


disk = typer.Typer(help="Conversations that rest on disk, while no server is running on them.")
app.add_typer(disk, name="cache", no_args_is_help=True)


@disk.command("stats")
def cache_stats(as_json: AsJson = False) -> None:
    """Show what rests on disk, and its limits. Of a running server: `everwarm ps`."""
    from everwarm.cli.disk_command import stats

    stats(settings(), as_json=as_json)


@disk.command("verify")
def cache_verify() -> None:
    """Read every piece and its checksums; what is damaged is removed."""
    from everwarm.cli.disk_command import verify

    raise typer.Exit(verify(settings()))


@disk.command("prune")
def cache_prune() -> None:
    """Remove what is of no use, or over the budget."""
    from everwarm.cli.disk_command import prune

    prune(settings())


@disk.command("clear")
def cache_clear() -> None:
    """Remove every conversation from disk. Answers stay right; they are read again."""
    from everwarm.cli.disk_command import clear

    clear(settings())
