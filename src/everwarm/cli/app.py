"""The commands and their flags. What a command does lives in a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everwarm import __version__
from everwarm.cli.options import DEFAULT_URL, AsJson, Key, Url, settings, takes_settings
from everwarm.lab.commands import recorded, several_servers
from everwarm.lab.commands.bench import bench

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(bench, name="bench")
several_servers.add_to(bench)
recorded.add_to(bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"everwarm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """A local model server on MLX whose conversations stay warm."""


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
    from everwarm.models.found import check_name
    from everwarm.serve import serve as run

    chosen = settings(config, **flags)
    if chosen.model:
        check_name(chosen.model)

    def find_model() -> str:
        from everwarm.cli.models import model_path

        return model_path(chosen)

    raise typer.Exit(run(chosen, find_model))


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
    """Hold one conversation twice, warm and cold, and show what each turn costs."""
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
        Path | None, typer.Option(help="Update the tables of this page instead of printing one.")
    ] = None,
) -> None:
    """Show how models write reasoning and tool calls, as found in their chat templates."""
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
            help="Arguments for the client itself; put -- before them.", metavar="-- ARGS"
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", help="Print a shell script instead of starting the client.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Start a coding agent on the running server.

    The client gets the server's address, its model and context length, timeouts that outlast a long
    prefill, and settings that keep its prompts from changing: by variables, flags and files in a
    temporary directory. None of your own files is changed. The client's own flags go behind --:

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


disk = typer.Typer(help="Look after the conversations on disk, while no server is running.")
app.add_typer(disk, name="cache", no_args_is_help=True)


@disk.command("stats")
def cache_stats(as_json: AsJson = False) -> None:
    """Show what is on disk, and its limits. For a running server see `everwarm ps`."""
    from everwarm.cli.disk_command import stats

    stats(settings(), as_json=as_json)


@disk.command("verify")
def cache_verify() -> None:
    """Read every file and check its checksums; remove what is damaged."""
    from everwarm.cli.disk_command import verify

    raise typer.Exit(verify(settings()))


@disk.command("prune")
def cache_prune() -> None:
    """Remove files that are of no use, or over the budget."""
    from everwarm.cli.disk_command import prune

    prune(settings())


@disk.command("clear")
def cache_clear() -> None:
    """Remove every conversation from disk. Later turns read them again, with the same answers."""
    from everwarm.cli.disk_command import clear

    clear(settings())
