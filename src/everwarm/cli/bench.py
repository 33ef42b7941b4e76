"""`everwarm bench`: its commands and their flags. What they do lives in modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everwarm.errors import ConfigError

bench = typer.Typer(
    help="Measure: what a warm conversation saves, on this machine or on recorded work.",
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
    from everwarm.cli.app import settings
    from everwarm.cli.models import fetch
    from everwarm.engine import shapes

    if shape not in shapes.SHAPES:
        raise ConfigError(f"There is no shape {shape}; there are {', '.join(shapes.SHAPES)}.")
    print(shapes.make_model(shape, directory, Path(fetch(settings(), None))))


@bench.command()
def floor(
    model: Annotated[str, typer.Argument(help="A model directory, or a Hugging Face id.")],
    at: Annotated[
        list[str], typer.Option(help="DEPTH:SUFFIX in tokens, such as 100000:40. Repeatable.")
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
    from everwarm.cli.floor import points_of, run

    run(model, points_of(at), rounds, as_json=as_json)
