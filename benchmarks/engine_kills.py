"""Kill the engine of a running server at random moments, under four clients that stream.

    python benchmarks/engine_kills.py [MODEL] [--kills 200] [--clients 4] [--tokens 6000]
        [--stop-s 60] [--seed 0] [--out FILE]

Kinds: SIGKILL, SIGABRT, SIGSTOP, an exit code, an exception in a thread. Each client holds its own
conversation and asks again where a turn failed. Of ten kills seven wait until a turn was answered
behind the last one and another streams, so that they meet running turns and the server's growing
waits do not pile up; two come soon after a start, one at any time. Reported: how many turns were
asked and streaming at the kills of each kind; how long `/health` took throughout; for each turn
that was running at a death and failed, how long after the death it ended (SIGSTOP: after the
signal); answers that differ from those of a server without a cache; the most tokens that a turn
had to read although an earlier attempt at its conversation had read them (`lost_tokens`: each
client has a length of its own, by which its records are told apart); what was refused; the time
from a death to the next first token of a turn asked behind it, where the server started the engine
again at once, and where it waited.
Run it with EVERWARM_BLAS=reference, where equal prompts give equal bits. Without MODEL: a tiny one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everwarm.client import ChatClient, ChatReply
from everwarm.errors import EverwarmError

HERE = Path(__file__).parent
WORDS = ["lake", "water", "stone", "bridge", "river", "boat", "wind", "light", "winter", "road"]
KINDS = {
    "SIGKILL": signal.SIGKILL,
    "SIGABRT": signal.SIGABRT,
    "SIGSTOP": signal.SIGSTOP,
    "thread": signal.SIGUSR1,
    "exit": signal.SIGUSR2,
}
APART = 3000
"""Tokens by which the conversations of one client are longer than those of the one before."""
HANG_S = 8
REPLY_TOKENS = 120


class KillableServer:
    """One server process, and its engine's id."""

    def __init__(self, model: Path, home: Path, *flags: str) -> None:
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.log = home.parent / f"{home.name}.log"
        self.words = self.log.open("w")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "killable", "serve", str(model), "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env=os.environ
            | {"EVERWARM_HOME": str(home), "PYTHONPATH": path}
            | {"EVERWARM_HANG_TIMEOUT": str(HANG_S), "EVERWARM_MAX_QUEUE": "64"},
        )
        assert self.child.stdout is not None
        while "http://" not in (line := self.child.stdout.readline()):
            assert line, "the server did not start"
        self.url = line.split()[-1].removesuffix("/v1")

    def engine(self) -> int | None:
        """The engine's process id; None while there is none."""
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat=,command="], capture_output=True, text=True
        ).stdout
        for line in listed.splitlines():
            pid, parent, stat, command = line.split(None, 3)
            if int(parent) == self.child.pid and "killable" in command and "Z" not in stat:
                return int(pid)
        return None

    def waits_s(self) -> list[float]:
        """For each death that the server saw, how long it waited before the next start."""
        return [
            float(n)
            for n in re.findall(r"^engine=died .*next_in_s=(\d+)", self.log.read_text(), re.M)
        ]

    def end(self) -> int:
        self.child.terminate()
        code = self.child.wait(60)
        assert self.child.stdout is not None
        self.child.stdout.close()
        self.words.close()
        return code


@dataclass
class AskedTurn:
    """One request, and what came of it. Times are of the monotonic clock."""

    messages: list[dict[str, Any]]
    began: float
    ended: float = 0.0
    first: float = 0.0
    error: str = ""
    reply: ChatReply | None = None


@dataclass
class Kill:
    """One kill, and how many turns were asked and not over, and of these streaming, at it."""

    kind: str
    at: float
    asked: int
    streaming: int


@dataclass
class Run:
    """What happened. Lists are appended to by one thread each, or by any."""

    turns: list[AskedTurn] = field(default_factory=list)
    deaths: list[Kill] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def killed(self, kind: str) -> Kill:
        """What is so at a kill now."""
        asked = [t for t in self.turns.copy() if not t.ended]
        return Kill(kind, time.monotonic(), len(asked), sum(1 for t in asked if t.first))


def talk(run: Run, url: str, n: int, n_tokens: int) -> None:
    """Hold conversations, each with a long system prompt, until the kills are over."""
    r = random.Random(n)
    history: list[dict[str, Any]] = []
    with ChatClient(url, read_timeout=300) as client:
        while not run.is_over.is_set():
            if len(history) >= 12 or not history:
                text = f"Talk {r.random()}. " + " ".join(r.choices(WORDS, k=n_tokens))
                history = [{"role": "system", "content": text}]
            question = {"role": "user", "content": " ".join(r.choices(WORDS, k=30))}
            for _ in range(3):
                turn = ask(run, client, [*history, question])
                if turn.reply is not None or run.is_over.is_set():
                    break
            if turn.reply is not None:
                history += [question, {"role": "assistant", "content": turn.reply.text}]


def ask(run: Run, client: ChatClient, messages: list[dict[str, Any]]) -> AskedTurn:
    turn = AskedTurn(messages, time.monotonic())
    run.turns.append(turn)
    try:
        for part in client.chat(messages, max_tokens=REPLY_TOKENS, temperature=0):
            turn.first = turn.first or time.monotonic()
            if isinstance(part, ChatReply) and part.finish is not None:
                turn.reply = part
        if turn.reply is None:
            turn.error = "no end"
    except EverwarmError as e:
        turn.error = e.message
    turn.ended = time.monotonic()
    return turn


def watch(run: Run, url: str) -> None:
    """Ask for `/health` all the time."""
    while not run.is_over.is_set():
        began = time.perf_counter()
        urllib.request.urlopen(f"{url}/health", timeout=30).read()
        run.health_s.append(time.perf_counter() - began)
        time.sleep(0.02)


def kill_all(run: Run, server: KillableServer, kills: int, stop_s: float, r: random.Random) -> None:
    """Kill at random moments: mostly while turns stream, at times soon after a start or in one."""
    kinds = [list(KINDS)[n % len(KINDS)] for n in range(kills)]
    r.shuffle(kinds)
    for n, kind in enumerate(kinds):
        when = r.random()
        if when < 0.9:
            wait_ready(server.url)
        if when < 0.7:
            wait_streaming(run)
        time.sleep(r.uniform(0, 0.5 if when < 0.7 else 4))
        while (pid := server.engine()) is None:
            time.sleep(0.05)
        run.deaths.append(run.killed(kind))
        try:
            os.kill(pid, KINDS[kind])
            if kind == "SIGSTOP":
                until = time.monotonic() + stop_s
                while server.engine() == pid and time.monotonic() < until:
                    time.sleep(0.1)
                os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass
        print(f"{n + 1}/{kills} {kind}", file=sys.stderr, flush=True)
    wait_ready(server.url)


def wait_streaming(run: Run) -> None:
    """Wait until a turn was answered since the last kill, and another streams; not for ever, since
    all may be refused."""
    since, until = run.deaths[-1].at if run.deaths else 0.0, time.monotonic() + 60
    while time.monotonic() < until:
        if run.killed("").streaming and any(t.reply and t.ended > since for t in run.turns.copy()):
            return
        time.sleep(0.02)


def wait_ready(url: str) -> None:
    """Wait until the engine takes jobs."""
    while True:
        with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
            if json.load(response)["status"] == "ok":
                return
        time.sleep(0.1)


def ends_s(run: Run, kinds: set[str]) -> list[float]:
    """From each death to the end of the turns that it broke."""
    found = []
    for kill, after in spans(run):
        broken = (t for t in run.turns if t.error and t.began <= kill.at <= t.ended < after)
        if kill.kind in kinds:
            found += [t.ended - kill.at for t in broken]
    return found


def spans(run: Run) -> list[tuple[Kill, float]]:
    """Each kill, and when the next one was."""
    return list(zip(run.deaths, [*[k.at for k in run.deaths[1:]], float("inf")], strict=True))


def first_tokens_s(run: Run, waits_s: list[float]) -> dict[str, list[float]]:
    """From each death to the first token of a turn that was asked behind it, by whether the server
    waited before it started the engine again. Without SIGSTOP, which is noticed late."""
    found: dict[str, list[float]] = {"at_once": [], "waited": [], "any": []}
    are_paired = len(waits_s) == len(run.deaths)  # else a kill met an engine that was dying anyway
    for n, (kill, after) in enumerate(spans(run)):
        first = [t.first for t in run.turns if t.began > kill.at and kill.at < t.first < after]
        if first and kill.kind != "SIGSTOP":
            took_s = min(first) - kill.at
            found["any"].append(took_s)
            if are_paired:
                found["waited" if waits_s[n] else "at_once"].append(took_s)
    return found


def lost_tokens(records: list[dict[str, Any]], n_tokens: int) -> list[float]:
    """For each turn, how much it read of what an earlier one of its conversation had read."""
    by_client: dict[int, list[dict[str, Any]]] = {}
    for r in sorted(records, key=lambda r: r["at"]):
        if r["prompt_tokens"]:
            by_client.setdefault((r["prompt_tokens"] - n_tokens) // APART, []).append(r)
    lost = []
    for own in by_client.values():
        known = prompt = 0
        for r in own:
            # A conversation only grows; another one begins with a shorter prompt, all of it new.
            if r["prompt_tokens"] < prompt or (r["new_tokens"] > n_tokens / 2 and known > n_tokens):
                known = 0
            prompt = r["prompt_tokens"]
            if r["cached_tokens"] or r["prefilled_tokens"]:
                lost.append(max(0, min(known, prompt - 1) - r["cached_tokens"]))
                known = max(known, r["cached_tokens"] + r["prefilled_tokens"])
                if r["finish"] in ("stop", "length"):
                    known = prompt + r["completion_tokens"]
    return [float(n) for n in lost]


def met(run: Run, kind: str) -> dict[str, int]:
    """What the kills of a kind met."""
    kills = [k for k in run.deaths if k.kind == kind]
    return {
        "n": len(kills),
        "asked": sum(k.asked for k in kills),
        "streaming": sum(k.streaming for k in kills),
        "met_none_streaming": sum(1 for k in kills if not k.streaming),
    }


def wrong(run: Run, model: Path, tmp: Path, most: int) -> dict[str, int]:
    """Ask a server without a cache the same."""
    server = KillableServer(model, tmp / "cold", "--no-cache")
    answered = [t for t in run.turns if t.reply is not None]
    asked = random.Random(0).sample(answered, min(most, len(answered)))
    n_wrong = n_tokens = 0
    with ChatClient(server.url) as client:
        for turn in asked:
            right = client.ask(turn.messages, max_tokens=REPLY_TOKENS, temperature=0)
            assert turn.reply is not None
            n_wrong += right.text != turn.reply.text
            n_tokens += right.prompt_tokens != turn.reply.prompt_tokens
    server.end()
    return {"compared": len(asked), "wrong": n_wrong, "wrong_prompts": n_tokens}


def spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    return {
        "n": len(values),
        "median": round(statistics.median(values), 4),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 4),
        "most": round(ordered[-1], 4),
    }


def measured(a: argparse.Namespace, model: Path, tmp: Path) -> dict[str, Any]:
    run, server = Run(), KillableServer(model, tmp / "home")
    threads = [threading.Thread(target=watch, args=(run, server.url))]
    threads += [
        threading.Thread(target=talk, args=(run, server.url, n, a.tokens + APART * n))
        for n in range(a.clients)
    ]
    for thread in threads:
        thread.start()
    try:
        kill_all(run, server, a.kills, a.stop_s, random.Random(a.seed))
        time.sleep(5)
    finally:
        run.is_over.set()
        for thread in threads:
            thread.join()
    with ChatClient(server.url) as client:
        records = client.get("/api/turns?limit=1000")["turns"]
    code = server.end()
    waits_s = server.waits_s()
    failed = [t for t in run.turns if t.error]
    texts: dict[str, int] = {}
    for turn in failed:
        texts[turn.error[:90]] = texts.get(turn.error[:90], 0) + 1
    return {
        "model": model.name,
        "kills": {kind: met(run, kind) for kind in KINDS},
        "waits_s": spread(waits_s),
        "turns": len(run.turns),
        "answered": sum(1 for t in run.turns if t.reply is not None),
        "errors": texts,
        "health_s": spread(run.health_s),
        "death_to_end_s": spread(ends_s(run, set(KINDS) - {"SIGSTOP"})),
        "stop_to_end_s": spread(ends_s(run, {"SIGSTOP"})),
        "death_to_first_token_s": {k: spread(v) for k, v in first_tokens_s(run, waits_s).items()},
        "lost_tokens": spread(lost_tokens(records, a.tokens)),
        "exit_code": code,
    } | wrong(run, model, tmp, a.compared)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model", type=Path, nargs="?")
    ap.add_argument("--kills", type=int, default=200)
    ap.add_argument("--clients", type=int, default=4)
    ap.add_argument("--tokens", type=int, default=6000)
    ap.add_argument("--stop-s", type=float, default=60)
    ap.add_argument("--compared", type=int, default=200)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--out", type=Path)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        model = a.model or tiny(tmp / "llama")
        text = json.dumps(measured(a, model, tmp), indent=2)
    print(text)
    if a.out:
        a.out.write_text(text + "\n")


def tiny(out: Path) -> Path:
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    import zoo

    return Path(zoo.save("llama", out, Path.home() / ".everwarm/models/SmolLM2-135M-Instruct"))


if __name__ == "__main__":
    main()
