"""Start an agent with a configuration that points at the running server.

Writes only into a temporary directory of its own, which goes when the agent ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from everwarm.cli.clients import CLIENTS, Client, Served, Setup
from everwarm.client import ChatClient
from everwarm.errors import ConfigError

_FOLDER = "$folder"
_HEAD = """\
#!/bin/sh
# {name} with everwarm at {url}, as `everwarm launch {name} --print` shows it.
# {tried} Install: {install}
"""


def served(http: ChatClient, key: str | None) -> Served:
    """The server that runs there. Raises EngineError where none does."""
    model = http.get("/v1/models")["data"][0]
    return Served(
        url=http.url,
        model=str(model["id"]).rsplit("/", 1)[-1],
        context_length=int(model["context_length"]),
        has_reasoning=bool(model["capabilities"]["reasoning"]),
        key=key or "none",
    )


def client_of(name: str) -> Client:
    """The agent of this name. Raises ConfigError, which lists all."""
    if name not in CLIENTS:
        raise ConfigError(f"CLIENT must be one of {', '.join(CLIENTS)}.")
    return CLIENTS[name]


def script(name: str, at: Served, args: Sequence[str] = ()) -> str:
    """The same as a shell script: what `--print` shows, and the files in `examples/`."""
    client = client_of(name)
    setup = client.setup(at, _FOLDER)
    what = f"{client.package} {client.version}"
    tried = (
        f"Tried with {what} on {client.tried}." if client.tried else f"For {what}; not tried yet."
    )
    head = _HEAD.format(name=name, url=at.url, tried=tried, install=client.install)
    lines = [head.rstrip()]
    lines += [f"# {client.note}"] if client.note else []
    if setup.files:
        lines += ["folder=$(mktemp -d)", "trap 'rm -r \"$folder\"' EXIT"]
    for file, text in setup.files.items():
        lines += [f"cat > {_quote(f'{_FOLDER}/{file}')} <<'END'", text + "END"]
    lines += [f"unset {v}" for v in setup.unset]
    lines += [f'export {k}="${{{k}:-{v}}}"' for k, v in setup.defaults.items()]
    lines += [f"export {k}={_quote(v)}" for k, v in setup.env.items()]
    given = [_quote(a) for a in (*setup.args, *args)]
    lines.append(" ".join([client.command, *given, *([] if args else ['"$@"'])]))
    return "\n".join(lines) + "\n"


def run(name: str, at: Served, args: Sequence[str]) -> int:
    """Start the agent and wait for its end; its exit code. Raises ConfigError if it is missing."""
    client = client_of(name)
    command = shutil.which(client.command)
    if command is None:
        raise ConfigError(f"{client.command} is not installed. Install it: {client.install}")
    with tempfile.TemporaryDirectory(prefix="everwarm-") as folder:
        setup = client.setup(at, folder)
        for file, text in setup.files.items():
            (Path(folder) / file).write_text(text, encoding="utf-8")
        env = environment(os.environ, setup)
        return _wait([command, *setup.args, *(args or client.alone)], env)


def environment(own: Mapping[str, str], setup: Setup) -> dict[str, str]:
    """The variables that the agent gets: ours go before what was set, defaults behind it."""
    kept = {k: v for k, v in own.items() if k not in setup.unset}
    return kept | {k: kept.get(k) or v for k, v in setup.defaults.items()} | dict(setup.env)


def _wait(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Ctrl-C reaches the agent by itself; what ends this process ends the agent, too.

    Signals are taken before there is an agent, and passed on when there is one: by default they
    would end this process and leave its folder. A handler is not inherited, SIG_IGN would be.
    """
    agent: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            return
        if agent is None:
            early.append(number)
        else:
            agent.send_signal(number)

    taken = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {s: signal.signal(s, pass_on) for s in taken}
    try:
        agent = subprocess.Popen(command, env=env)
        for number in early:
            agent.send_signal(number)
        code = agent.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def _quote(text: str) -> str:
    """For a shell; the folder's name stays a variable."""
    parts = [shlex.quote(part) if part else "" for part in text.split(_FOLDER)]
    return f'"{_FOLDER}"'.join(parts) or "''"
