"""Real agents against a real server: `python tests/clients/live.py CLIENTS_DIR [AGENT ...]`.

`everwarm launch` starts each of them, and a small proxy dictates the replies, by adding
`everwarm.reply` to what an agent sends. All else is real: the agent runs its tools, remembers its
session, resumes it in new processes, forks it, and is stopped in the middle of a reply.

Not part of the suite, since it wants the agents. `--install` puts them into CLIENTS_DIR first, in
the versions that `everwarm launch` names, with a Node of their own; that wants npm
(aider is not there; it has to be on the PATH).

Prints what each step read, and both ratios; fails where a step does, or reads too much.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from agents import Agent, Kind, Place, agent
from proxy import Dictation, proxy
from serving import Server, save_talker, serving

import everwarm
from everwarm.cli.clients import CLIENTS
from everwarm.engine.convert import convert
from everwarm.models import ensure_default

NAMES = ("opencode", "pi", "codex", "claude", "openclaw")
NODE = "26.10.0"
COUNTS = ("prompt_tokens", "prefilled_tokens", "unseen_tokens", "new_tokens", "again")
THOUGHT = "<think>Let me think.</think>"
LONG = "word " * 4000
LIMIT = 1.02
NOTE = 128
"""What an agent that `rereads` may take back behind the last message, in tokens."""


@dataclass(frozen=True, slots=True)
class Step:
    """Messages to the agent, what the model says to them, and how the answer ends."""

    name: str
    kind: Kind
    messages: list[str]
    replies: list[str]
    expected: str


def script(shell: Callable[[str], str]) -> list[Step]:
    """Tools in three steps, two at once in the last, and further messages; a fork; a stop."""
    both = shell("echo one > made.txt") + shell("echo two >> made.txt")
    return [
        Step(
            "first",
            "first",
            ["Look around."],
            [
                f"{THOUGHT}I look.{shell('ls')}",
                f"{THOUGHT}{shell('cat lake.txt')}",
                f"{THOUGHT}\n\nBoth. {both}",
                f"{THOUGHT}All is done.",
            ],
            "All is done.",
        ),
        Step(
            "second and third",
            "next",
            ["And what is in it?", "Is that all?"],
            [f"{THOUGHT}{shell('cat made.txt')}", f"{THOUGHT}Two words.", f"{THOUGHT}It is."],
            "It is.",
        ),
        Step("resume", "next", ["What was the lake like?"], [f"{THOUGHT}It is deep."], "is deep."),
        Step("fork", "fork", ["Say it again."], [f"{THOUGHT}Deep, I said."], "Deep, I said."),
        Step("stopped", "next", ["Tell me all about it."], [f"{THOUGHT}{LONG}"], ""),
        Step(
            "again",
            "next",
            ["Tell me all about it."],
            [f"{THOUGHT}{shell('cat lake.txt')}", f"{THOUGHT}That was all."],
            "That was all.",
        ),
    ]


EDIT = """\
made.txt
```
one
two
```"""


def plain() -> list[Step]:
    """For an agent without tools: an edit as text, a resume in a new process, a stop."""
    return [
        Step("first", "first", ["Make it."], [f"{THOUGHT}Here it is.\n\n{EDIT}"], "Here it is."),
        Step("resume", "next", ["Is that all?"], [f"{THOUGHT}It is all."], "It is all."),
        Step("stopped", "next", ["Tell me all about it."], [f"{THOUGHT}{LONG}"], ""),
        Step("again", "next", ["Tell me all about it."], [f"{THOUGHT}That was all."], "was all."),
    ]


@dataclass(slots=True)
class Walk:
    """One agent's way through the script. Changes as it goes; owned by the main thread."""

    name: str
    agent: Agent
    server: Server
    url: str
    said: Dictation
    place: Place
    path: str

    def go(self) -> list[tuple[str, dict[str, int]]]:
        """What each step read; raises AssertionError where one fails."""
        shell = self.agent.shell
        self.said.to_all = shell is None
        steps = [s for s in (script(shell) if shell else plain()) if s.kind in self.agent.kinds]
        counts = [(step.name, self._step(step)) for step in steps]
        if self.agent.rereads:
            for one, two in pairwise(self._turns()):
                assert two["cached_tokens"] >= one["prompt_tokens"] - NOTE, (one, two)
        return counts

    def _step(self, step: Step) -> dict[str, int]:
        before = len(self._turns())
        self.said.replies = [*step.replies]
        many = self.agent.takes_many
        for messages in [step.messages] if many else [[m] for m in step.messages]:
            with self._asked(step.kind, messages) as process:
                if step.name == "stopped":
                    self._stop(process)
                out, _ = process.communicate(timeout=300)
            self.place = replace(self.place, output=self.place.output + out)
        assert not self.said.replies, f"{step.name}: not all was asked for\n{out}"
        if step.expected:
            assert process.returncode == 0 and step.expected in out, out
        turns = self._turns()[before:]
        return {n: sum(t[n] for t in turns) for n in COUNTS} | {"requests": len(turns)}

    @contextmanager
    def _asked(self, kind: Kind, messages: list[str]) -> Iterator[subprocess.Popen[str]]:
        own = self.agent.ask(kind, messages, self.place)
        launch = [sys.executable, "-m", "everwarm", "launch", self.name, "--url", self.url, "--"]
        print("$", self.name, *own, flush=True)
        env = {"PATH": self.path, "HOME": str(self.place.home), "TERM": "xterm", "LANG": "C.UTF-8"}
        process = subprocess.Popen(
            [*launch, *own],
            cwd=self.place.project,
            env=env | source() | self.agent.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _stop(self, process: subprocess.Popen[str]) -> None:
        """Ctrl-C in the middle of a reply; the server must notice."""
        while self.said.replies or self.said.words < 50:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._running():
            time.sleep(0.05)
        if process.poll() is None:  # some ask whether it is meant
            time.sleep(2)
            os.killpg(process.pid, signal.SIGTERM)
        assert self._turns()[-1]["finish"] == "cancelled"

    def _running(self) -> bool:
        return bool(self.server.call("GET", "/api/ps")[1]["running"])

    def _turns(self) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = self.server.call("GET", "/api/turns?limit=1000")[1]["turns"]
        return turns[::-1]


def source() -> dict[str, str]:
    """The variable by which a process elsewhere runs this very code."""
    return {"PYTHONPATH": str(Path(everwarm.__file__).parents[1])}


def report(name: str, one: Agent, steps: list[tuple[str, dict[str, int]]]) -> bool:
    """Print what was read; whether it is within the limits."""
    for step, counts in steps:
        print(f"{name:10}{step:18}", *(f"{k}={v}" for k, v in counts.items()))
    sums = {k: sum(counts[k] for _, counts in steps) for k in steps[0][1]}
    read = sums["prefilled_tokens"]
    cache, reprocess = read / sums["unseen_tokens"], read / sums["new_tokens"]
    version = CLIENTS[name].version
    print(
        f"| {name} {version} | {sums['requests']} | {sums['prompt_tokens']:,} | {read:,} "
        f"| {cache:.3f} | {reprocess:.3f} | {sums['again']:,} |"
    )
    return cache <= LIMIT and (one.rereads or one.edits or reprocess <= LIMIT)


def walk(name: str, clients: Path, model: Path, at: Path) -> bool:
    """One agent, one fresh server."""
    one = agent(name)
    place = Place(at / "home", at / "project")
    for folder in (place.home, place.project, place.home / one.workspace):
        folder.mkdir(parents=True, exist_ok=True)
    work = place.home / one.workspace if one.workspace else place.project
    subprocess.run(["git", "init", "-q"], cwd=place.project, check=True)
    (work / "lake.txt").write_text("It is deep.\n")
    path = f"{clients / 'node_modules' / '.bin'}:{os.environ['PATH']}"
    with serving(model, "--forced-replies") as server, proxy(server.port) as (url, said):
        try:
            steps = Walk(name, one, server, url, said, place, path).go()
        finally:
            one.end(place.home)
    assert (work / "made.txt").read_text() == "one\ntwo\n"
    return report(name, one, steps)


def install(clients: Path, names: tuple[str, ...], more: Sequence[str] = ()) -> None:
    """Node first: some of the others want a newer one than a machine may have.

    `more`: packages besides the agents'.
    """
    from_npm = [CLIENTS[n] for n in names if CLIENTS[n].install.startswith("npm")]
    packages = [*(f"{c.package}@{c.version}" for c in from_npm), *more]
    clients.mkdir(parents=True, exist_ok=True)
    allowed = {p.package: True for p in CLIENTS.values()} | {"node": True}
    (clients / "package.json").write_text(json.dumps({"allowScripts": allowed}))
    path = f"{clients / 'node_modules' / '.bin'}:{os.environ['PATH']}"
    for wanted in ([f"node@{NODE}"], packages):
        command = ["npm", "install", "--no-fund", "--no-audit", *wanted]
        subprocess.run(command, cwd=clients, check=True, env=os.environ | {"PATH": path})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", type=Path)
    parser.add_argument("agents", nargs="*", metavar="AGENT")
    parser.add_argument("--install", action="store_true")
    args = parser.parse_args()
    names = tuple(args.agents) or NAMES
    clients = args.clients.absolute()
    if args.install:
        install(clients, names)
    home = os.environ.get("EVERWARM_TEST_HOME") or Path.home() / ".everwarm"
    os.environ |= {"EVERWARM_DISK": "false", "EVERWARM_REMEMBER": "false"}
    smollm2 = ensure_default(Path(home), convert=convert)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        model = save_talker(at / "model", smollm2)
        good = [walk(name, clients, model, at / name) for name in names]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
