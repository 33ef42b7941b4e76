"""The command line: flags in, a call, an exit code. What a command needs is imported inside it,
so that `--help` answers at once.

Exit codes: 0 done, 1 the server or the network failed, 2 something was asked for wrongly.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from everwarm.config import Settings, load_settings
from everwarm.errors import ConfigError, EverwarmError

app = typer.Typer(
    name="everwarm",
    help="A local model server on MLX that never reads the same conversation twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[
    str | None,
    typer.Argument(help="A directory or a Hugging Face id. Without it: SmolLM2-135M-Instruct."),
]
Config = Annotated[
    Path | None, typer.Option(help="A settings file. Default: config.toml in EVERWARM_HOME.")
]
Url = Annotated[str | None, typer.Option(help="The server. Default: from the settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def main() -> None:
    """Run the command line; an error that a person can mend is one sentence on stderr."""
    try:
        app()
    except EverwarmError as error:
        print(f"everwarm: {error.message}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None


@app.command()
def serve(
    model: Model = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for any free one [8642].")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Key that clients must send. Better: EVERWARM_API_KEY.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Read every prompt whole, for comparisons.")
    ] = False,
    memory_budget: Annotated[
        str | None, typer.Option(help="Memory for conversations, such as 8GB.")
    ] = None,
    prefill_step: Annotated[int | None, typer.Option(help="Tokens per prefill chunk.")] = None,
    prefill_share: Annotated[
        float | None, typer.Option(help="Part of the time prefill may take from decoding [0.5].")
    ] = None,
    context_length: Annotated[int | None, typer.Option(help="Longest context, tokens.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning, error.")] = None,
    config: Config = None,
) -> None:
    """Serve a model over the OpenAI chat API."""
    flags: dict[str, object] = {
        "model": model,
        "host": host,
        "port": port,
        "api_key": api_key,
        "cache": False if no_cache else None,
        "memory_budget": memory_budget,
        "prefill_step": prefill_step,
        "prefill_share": prefill_share,
        "context_length": context_length,
        "log_level": log_level,
    }
    settings = load_settings(flags, os.environ, config)
    from everwarm.cli.fetch import default_model

    path = settings.model or str(default_model(settings.home))
    from everwarm.server.run import serve as run

    raise SystemExit(run(settings, path))


@app.command()
def chat(
    url: Url = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, tokens.")] = 1024,
    config: Config = None,
) -> None:
    """Talk to a running server in the terminal."""
    from everwarm.cli.chat import talk

    settings = load_settings({}, os.environ, config)
    talk(_url(url, settings), settings.api_key, system=system, max_tokens=max_tokens)


@app.command()
def ps(url: Url = None, json: Json = False, config: Config = None) -> None:
    """Show what a running server holds."""
    from everwarm.cli.show import show_server

    settings = load_settings({}, os.environ, config)
    show_server(_url(url, settings), settings.api_key, as_json=json)


@app.command()
def ls(json: Json = False, config: Config = None) -> None:
    """List the models on this computer."""
    from everwarm.cli.show import show_models

    show_models(load_settings({}, os.environ, config).home, as_json=json)


@app.command()
def pull(model: Model = None, config: Config = None) -> None:
    """Fetch a model and print where it lies."""
    from everwarm.cli.fetch import default_model, from_hub

    settings = load_settings({}, os.environ, config)
    print(from_hub(model) if model else default_model(settings.home))


@app.command()
def demo(json: Json = False, config: Config = None) -> None:
    """Hold ten turns with the cache on and again with it off, and compare."""
    from everwarm.cli.demo import run_demo
    from everwarm.cli.fetch import default_model

    settings = load_settings({}, os.environ, config)
    run_demo(default_model(settings.home), settings.home, as_json=json)


def _url(url: str | None, settings: Settings) -> str:
    """The server's root: as given, with or without `/v1`, or where the settings say it listens."""
    if url:
        return url.rstrip("/").removesuffix("/v1")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
