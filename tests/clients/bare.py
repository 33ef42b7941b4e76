"""Clients that get an address and a key: `python tests/clients/bare.py CLIENTS_DIR [CLIENT ...]`.

claude (its terminal interface), autogen, langchain and ai-sdk, each against a server of its own,
without `everwarm launch` and with no setting of ours: base URL and key. Where a client wants a
model's name, it is `default`. A small proxy dictates the replies, as for live.py; all else is real.

Not part of the suite, since it wants the clients, and tmux. `--install` puts them into CLIENTS_DIR
first; that wants npm, and takes the newest AutoGen and LangChain.

Prints for each what was asked, refused, noted and read; fails where a client does, where any answer
is a 4xx or 5xx, or where more was read than this model had never read.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from agents import agent, call
from ai_sdk import PACKAGES
from bare_claude import ClaudeSession, seed
from live import COUNTS, LIMIT, install
from proxy import Dictation, proxy
from serving import Server, save_talker, serving

from everwarm.engine.convert import convert
from everwarm.models import ensure_default

KEY = "dummy-key"
FROM_PYPI = ["autogen-agentchat", "autogen-ext[openai]", "langchain", "langchain-openai"]
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a client is started: its folders, where clients are, the address, what will be said."""

    home: Path
    project: Path
    clients: Path
    url: str
    said: Dictation

    def env(self, **more: str) -> dict[str, str]:
        path = f"{self.clients / 'node_modules' / '.bin'}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **more}

    def run(self, *command: str | Path) -> None:
        """A program that talks in OpenAI's formats, to its end."""
        env = self.env(
            OPENAI_BASE_URL=f"{self.url}/v1", OPENAI_API_KEY=KEY, CLIENTS=str(self.clients)
        )
        subprocess.run(command, cwd=self.project, env=env, check=True, timeout=900)


def loop() -> list[str]:
    """Three steps with tools, two calls at once in the second; a second message with one more."""
    first, then = "<think>One first.</think>I look.", "<think>Then two.</think>"
    return [
        first + call("look", bed="north"),
        then + call("look", bed="east") + call("look", bed="west"),
        "<think>That is it.</think>All dry.",
        f"<think>Once more.</think>{call('look', bed='south')}",
        "<think>I knew.</think>As I said.",
    ]


def _claude(desk: Desk) -> None:
    seed(desk.home, desk.project, KEY)
    env = desk.env(ANTHROPIC_BASE_URL=desk.url, ANTHROPIC_API_KEY=KEY, **agent("claude").env)
    ClaudeSession(desk.project, env, desk.said).go()


def _autogen(desk: Desk) -> None:
    team = ["They are dry.", "Water them.", "I will.", "Good."]
    desk.said.replies = [*loop(), *loop(), *team]
    desk.run(desk.clients / "python" / "bin" / "python", HERE / "bare_autogen.py")


def _langchain(desk: Desk) -> None:
    desk.said.replies = [*loop(), *loop(), *loop()]
    desk.run(desk.clients / "python" / "bin" / "python", HERE / "bare_langchain.py")


def _ai_sdk(desk: Desk) -> None:
    desk.said.replies = [*loop(), *loop()]
    desk.run("node", HERE / "bare_ai_sdk.mjs")


CLIENTS: Mapping[str, Callable[[Desk], None]] = {
    "claude": _claude,
    "autogen": _autogen,
    "langchain": _langchain,
    "ai-sdk": _ai_sdk,
}


def report(name: str, server: Server, said: Dictation) -> bool:
    """Print what was asked, refused, noted and read; whether it is as it should be."""
    turns = server.call("GET", "/api/turns?limit=1000")[1]["turns"]
    sums = {n: sum(t[n] for t in turns) for n in COUNTS}
    refused = [a for a in said.answers if a.status >= 400]
    for answer in refused:
        print(name, "was refused:", answer)
    noted = sorted({path for t in turns for path in t["ignored"]})
    print(name, "sent without effect:", ", ".join(noted) or "nothing")
    read = sums["prefilled_tokens"]
    cache, reprocess = read / max(sums["unseen_tokens"], 1), read / max(sums["new_tokens"], 1)
    print(
        f"| {name} | {len(said.answers)} | {len(refused)} | {sums['prompt_tokens']:,} | {read:,} "
        f"| {cache:.3f} | {reprocess:.3f} | {sums['again']:,} |",
        flush=True,
    )
    return bool(turns) and not refused and not said.replies and cache <= LIMIT


def walk(name: str, clients: Path, model: Path, at: Path) -> bool:
    """One client, one fresh server."""
    home, project = at / "home", at / "project"
    for folder in (home, project):
        folder.mkdir(parents=True)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    (project / "lake.txt").write_text("It is deep.\n")
    with serving(model, "--forced-replies") as server, proxy(server.port) as (url, said):
        try:
            CLIENTS[name](Desk(home, project, clients, url, said))
        finally:
            good = report(name, server, said)
    return good


def install_all(clients: Path) -> None:
    install(clients, ("claude",), PACKAGES)
    python = clients / "python"
    subprocess.run([sys.executable, "-m", "venv", str(python)], check=True)
    subprocess.run([python / "bin" / "pip", "install", "-q", *FROM_PYPI], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", type=Path)
    parser.add_argument("names", nargs="*", metavar="CLIENT")
    parser.add_argument("--install", action="store_true")
    args = parser.parse_args()
    clients = args.clients.absolute()
    if args.install:
        install_all(clients)
    home = os.environ.get("EVERWARM_TEST_HOME") or Path.home() / ".everwarm"
    os.environ |= {"EVERWARM_DISK": "false", "EVERWARM_REMEMBER": "false"}
    smollm2 = ensure_default(Path(home), convert=convert)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        at = Path(folder)
        model = save_talker(at / "model", smollm2)
        good = [walk(name, clients, model, at / name) for name in args.names or CLIENTS]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
