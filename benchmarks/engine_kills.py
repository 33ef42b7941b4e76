"""Kill the engine of a running server at random moments, under four clients that stream.

    python benchmarks/engine_kills.py [MODEL] [--kills 200] [--clients 4] [--tokens 6000]
        [--stop-s 60] [--seed 0] [--out FILE]

Kinds: SIGKILL, SIGABRT, SIGSTOP, an exit code, an exception in a thread. Each client holds its own
conversation and asks again where a turn failed. Reported: how long `/health` took throughout; for
each turn that was running at a death and failed, how long after the death it ended (SIGSTOP: after
the signal); answers that differ from those of a server without a cache; the most tokens that a turn
read beyond what was new in it; what was refused; the time from a death to the next first token.
Run it with EVERWARM_BLAS=reference, where equal prompts give equal bits. Without MODEL: a tiny one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
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
HANG_S = 8
REPLY_TOKENS = 120


class KillableServer:
    """One server process, and its engine's id."""

    def __init__(self, model: Path, home: Path, *flags: str) -> None:
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.words = (home.parent / f"{home.name}.log").open("w")
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
class Run:
    """What happened. Lists are appended to by one thread each, or by any."""

    turns: list[AskedTurn] = field(default_factory=list)
    deaths: list[tuple[str, float]] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)


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
    """Kill at random moments: mostly while turns run, at times while the engine starts."""
    kinds = [list(KINDS)[n % len(KINDS)] for n in range(kills)]
    r.shuffle(kinds)
    for n, kind in enumerate(kinds):
        if r.random() < 0.9:
            wait_ready(server.url)
        time.sleep(r.uniform(0, 4))
        while (pid := server.engine()) is None:
            time.sleep(0.05)
        run.deaths.append((kind, time.monotonic()))
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
    for at, (kind, death) in enumerate(run.deaths):
        after = run.deaths[at + 1][1] if at + 1 < len(run.deaths) else float("inf")
        broken = (t for t in run.turns if t.error and t.began <= death <= t.ended < after)
        if kind in kinds:
            found += [t.ended - death for t in broken]
    return found


def first_tokens_s(run: Run) -> list[float]:
    """From each death to the first token that any client got behind it."""
    found = []
    for at, (_, death) in enumerate(run.deaths):
        after = run.deaths[at + 1][1] if at + 1 < len(run.deaths) else float("inf")
        began = sorted(t.first for t in run.turns if t.began > death and death < t.first < after)
        found += [began[0] - death] if began else []
    return found


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
        threading.Thread(target=talk, args=(run, server.url, n, a.tokens)) for n in range(a.clients)
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
    failed = [t for t in run.turns if t.error]
    texts: dict[str, int] = {}
    for turn in failed:
        texts[turn.error[:90]] = texts.get(turn.error[:90], 0) + 1
    return {
        "model": model.name,
        "kills": {k: sum(1 for x, _ in run.deaths if x == k) for k in KINDS},
        "turns": len(run.turns),
        "answered": sum(1 for t in run.turns if t.reply is not None),
        "errors": texts,
        "health_s": spread(run.health_s),
        "death_to_end_s": spread(ends_s(run, set(KINDS) - {"SIGSTOP"})),
        "stop_to_end_s": spread(ends_s(run, {"SIGSTOP"})),
        "death_to_first_token_s": spread(first_tokens_s(run)),
        "beyond_new_tokens": spread([r["again"] for r in records if r["finish"] != "error"]),
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
