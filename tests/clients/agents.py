"""How each agent is asked from a script, and how it spells a call of its shell.

What points it at the server is not here: that is what `everwarm launch` does.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["first", "next", "fork"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session happens. `output`: all that its agent has printed so far."""

    home: Path
    project: Path
    output: str = ""


def call(name: str, **arguments: object) -> str:
    """A call as the tests' model writes it."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent. `ask`: its own arguments for messages, one or more where it `takes_many`.

    `kinds`: what it can be asked from a script. `rereads`: it takes back the end of each request,
    so that the reply is read again. `edits`: it changes messages that it sent before. `shell` is
    None where it has no tools.
    """

    ask: Callable[[Kind, list[str], Place], list[str]]
    shell: Callable[[str], str] | None = lambda command: call("bash", command=command)
    env: Mapping[str, str] = field(default_factory=dict)
    takes_many: bool = False
    kinds: frozenset[Kind] = frozenset(("first", "next", "fork"))
    rereads: bool = False
    edits: bool = False
    workspace: str = ""
    """Where it works, in its home, if not in the project."""
    daemon: str = ""
    """The file in its home that names what it leaves running, as JSON with a `pid`."""

    def end(self, home: Path) -> None:
        """End what it left running."""
        if self.daemon and (file := home / self.daemon).exists():
            with suppress(ProcessLookupError):
                os.kill(json.loads(file.read_text())["pid"], signal.SIGTERM)


def agent(name: str) -> Agent:
    """The agent of this name, from its own file."""
    found: Agent = importlib.import_module(f"agent_{name}").AGENT
    return found
