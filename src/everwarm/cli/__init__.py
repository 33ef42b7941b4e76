"""The command `everwarm`. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

import sys

from everwarm.cli.app import app
from everwarm.errors import ConfigError, EverwarmError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. Our errors are one line on stderr: exit 2 for settings, 1 otherwise."""
    try:
        app()
    except ConfigError as error:
        print(f"everwarm: {error.message}", file=sys.stderr)
        sys.exit(2)
    except EverwarmError as error:
        print(f"everwarm: {error.message}", file=sys.stderr)
        sys.exit(1)
