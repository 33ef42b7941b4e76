"""Options that commands share, and the flags of `serve`, one for each setting."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from everwarm.config import FIELDS, Settings, flag_of, load_settings

DEFAULT_URL = "http://127.0.0.1:8642"
Url = Annotated[str, typer.Option(envvar="EVERWARM_URL", help="The server to talk to.")]
Key = Annotated[
    str | None, typer.Option("--api-key", envvar="EVERWARM_API_KEY", help="The server's key.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings(config: Path | None = None, **flags: object) -> Settings:
    """The settings of this process, with these flags on top."""
    return load_settings(flags, os.environ, config)


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Offer a flag for each setting that has one; the command gets them all as keywords."""
    own = signature(command, eval_str=True).parameters.values()
    more = [p for p in own if p.kind is not Parameter.VAR_KEYWORD]
    command.__signature__ = Signature([*_flags(), *more])  # type: ignore[attr-defined]
    return command


def _flags() -> Iterator[Parameter]:
    for name, setting in FIELDS.items():
        about: dict[str, Any] = {"help": setting.metadata["doc"], "show_default": False}
        spelled = flag_of(name)
        if not spelled:
            continue
        is_option = spelled.startswith("-")
        offered = typer.Option(spelled, **about) if is_option else typer.Argument(**about)
        kind = setting.metadata["reader"].flag | None
        yield Parameter(
            name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, offered]
        )
