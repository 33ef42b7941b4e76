"""Does a server stay level over days? Mixed agents, for as long as it is told.

    python benchmarks/soak.py MODEL_DIR [--turns N] [--seconds S] [--kills N] [--json FILE]

Agents go on with conversations, branch off, ask again, leave in mid-reply and begin anew. The
engine is killed at random moments of the first half (`--kills-throughout`: of all of it); from each
kill it is measured when the engine is ready again, and when the first token of the next turn comes.
Every two seconds memory, open files and threads of both processes are looked at, with MLX's own
bytes and the number of the buffers that the cache holds. A quantity is level where its growth over
the second half is no more than twice the error of that growth, or 1% of its mean: `level` in the
result.
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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everwarm.client import ChatClient, ChatReply, Delta
from everwarm.errors import EverwarmError

WORDS = ["lake", "water", "stone", "bridge", "river", "boat", "wind", "light", "winter", "road"]
LONGEST = 16
"""Messages of a conversation before another one begins."""
CONVERSATIONS = 4
"""Of each agent, at a time."""
REPLY = 8
SAMPLE_S = 2.0
BLOCKS = 12
ENGINE = ("memory_bytes", "memory_cached_bytes", "cache_bytes", "cache_buffers", "states", "jobs")
KINDS = {"next": 60, "branch": 12, "again": 10, "leave": 10, "new": 8}


class Server:
    """One server process, and its engine's, found among its children."""

    def __init__(self, model: Path, home: Path, flags: Sequence[str]) -> None:
        env = os.environ | {"EVERWARM_HOME": str(home), "EVERWARM_DISK": "true"}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().split()[-1]

    def engine_pid(self) -> int | None:
        """The engine's process; None where it has none now."""
        for pid in _children(self.child.pid):
            if b"everwarm.engine.process" in _read(pid, "cmdline"):
                return pid
        return None

    def end(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(60)
        assert self.child.stdout is not None
        self.child.stdout.close()
        return code


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(p) for p in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def of_process(pid: int) -> dict[str, int]:
    """RSS in bytes, open files and threads; empty where it is gone."""
    rows = dict(line.split(":", 1) for line in _read(pid, "status").decode().splitlines())
    if "VmRSS" not in rows:
        return {}
    try:
        fds = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return {}
    rss = int(rows["VmRSS"].split()[0]) * 1024
    return {"rss": rss, "fds": fds, "threads": int(rows["Threads"])}


@dataclass
class Tally:
    """What happened. Agents add under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    turns: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    read: int = 0
    new: int = 0
    reread: list[int] = field(default_factory=list)

    def ended(self, kind: str, how: str, error: str = "") -> None:
        with self.lock:
            self.turns += 1
            self.kinds[kind] += 1
            self.ends[how] += 1
            if error:
                self.errors[error[:120]] += 1


Talk = list[dict[str, str]]


class Agent:
    """One client with some conversations. Live: its own thread."""

    def __init__(self, url: str, seed: int, tally: Tally, over: threading.Event) -> None:
        self.client = ChatClient(url, read_timeout=120)
        self.r = random.Random(seed)
        self.seed, self.tally, self.over = seed, tally, over
        self.talks: list[Talk] = []
        self.n = 0

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self.turn()
            except EverwarmError as e:
                self.tally.ended("failed", "error", e.message)
                self.over.wait(0.05)
        self.client.close()

    def turn(self) -> None:
        kind = self.r.choices(list(KINDS), list(KINDS.values()))[0]
        if not self.talks or kind == "new":
            kind = "new"
            self.talks = [*self.talks[-CONVERSATIONS + 1 :], self.opening()]
        talk = self.r.choice(self.talks) if kind != "new" else self.talks[-1]
        if len(talk) >= LONGEST:
            self.talks.remove(talk)
            self.talks.append(talk := self.opening())
        asked = self.asked(kind, talk)
        if kind == "leave":
            self.leave(asked)
            return
        reply = self.client.ask(asked, max_tokens=REPLY, temperature=0)
        self.tally.ended(kind, reply.finish or "none")
        talk[:] = [*asked, {"role": "assistant", "content": reply.text}]

    def opening(self) -> Talk:
        """A system prompt; every third agent's is the same."""
        about = self.said(120, random.Random(self.seed % 3))
        return [{"role": "system", "content": f"You are a coding agent. {about}"}]

    def asked(self, kind: str, talk: Talk) -> Talk:
        users = [i for i, m in enumerate(talk) if m["role"] == "user"]
        if kind == "branch" and len(users) > 1:
            return [*talk[: self.r.choice(users[:-1])], self.question()]
        if kind == "again" and users:
            return talk[: users[-1] + 1]
        return [*talk, self.question()]

    def question(self) -> dict[str, str]:
        self.n += 1
        said = self.said(self.r.randint(5, 60), self.r)
        return {"role": "user", "content": f"{self.seed}.{self.n}: {said}"}

    def said(self, n: int, r: random.Random) -> str:
        return " ".join(r.choices(WORDS, k=n))

    def leave(self, asked: Talk) -> None:
        """Go away at the first word, or before it."""
        reply = self.client.chat(asked, max_tokens=200, temperature=0)
        for part in reply:
            if isinstance(part, (Delta, ChatReply)):
                break
        reply.close()
        self.tally.ended("leave", "left")


@dataclass(frozen=True)
class Kill:
    """Seconds from the death until the engine was ready, and until a turn's first token."""

    signal: str
    ready_s: float
    first_token_s: float
    cached: int
    prompt: int


def kill(server: Server, client: ChatClient, warm: Talk, how: int) -> Kill | None:
    """Kill the engine, then ask a conversation that was on disk what comes next."""
    pid = server.engine_pid()
    if pid is None:
        return None
    os.kill(pid, how)
    began = time.monotonic()
    got: list[float] = []

    def ready() -> None:
        while time.monotonic() - began < 120:
            time.sleep(0.02)
            now = server.engine_pid()
            try:
                if now not in (None, pid) and client.get("/health")["status"] == "ok":
                    got.append(time.monotonic() - began)
                    return
            except EverwarmError:
                continue

    watching = threading.Thread(target=ready)
    watching.start()
    other = ChatClient(server.url, read_timeout=120)
    first, reply = 0.0, None
    while reply is None and time.monotonic() - began < 120:
        try:
            for part in other.chat(warm, max_tokens=4, temperature=0):
                first = first or time.monotonic() - began
                reply = part if isinstance(part, ChatReply) else None
        except EverwarmError:
            first = 0.0
            time.sleep(0.01)
    watching.join()
    other.close()
    if reply is None or not got:
        return None
    cached, prompt = reply.cached_tokens, reply.prompt_tokens
    return Kill(signal.Signals(how).name, got[0], first, cached, prompt)


def sample(server: Server, client: ChatClient) -> dict[str, float]:
    """Everything that should stay level."""
    out: dict[str, float] = {}
    pid = server.engine_pid()
    for name, p in (("front", server.child.pid), ("engine", pid)):
        found = of_process(p) if p is not None else {}
        out |= {f"{name}_{k}": v for k, v in found.items()}
    try:
        counts = client.get("/api/ps")["engine"]
    except EverwarmError:
        return out
    return out | {k: counts[k] for k in ENGINE if k in counts}


def level(values: Sequence[float]) -> dict[str, Any]:
    """Growth from the start to the end of a series, its error, and whether that is none.

    The means of some blocks stand for the series: neighbouring samples are alike.
    """
    size = len(values) // BLOCKS
    if size == 0:
        return {"samples": len(values), "level": None}
    y = [statistics.fmean(values[i * size : (i + 1) * size]) for i in range(BLOCKS)]
    x = [i - (BLOCKS - 1) / 2 for i in range(BLOCKS)]
    sxx = sum(a * a for a in x)
    mean = statistics.fmean(y)
    slope = sum(a * (b - mean) for a, b in zip(x, y, strict=True)) / sxx
    rest = sum((b - mean - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    growth = slope * (BLOCKS - 1)
    error = (rest / (BLOCKS - 2) / sxx) ** 0.5 * (BLOCKS - 1)
    is_level = abs(growth) <= max(2 * error, 0.01 * abs(mean))
    return {
        "samples": len(values), "mean": round(mean, 1), "growth": round(growth, 1),
        "error": round(error, 1), "least": min(values), "most": max(values), "level": is_level,
    }  # fmt: skip


def soak(a: argparse.Namespace, server: Server) -> dict[str, Any]:
    tally, over, r = Tally(), threading.Event(), random.Random(a.seed)
    agents = [Agent(server.url, a.seed * 1000 + n, tally, over) for n in range(a.agents)]
    client = ChatClient(server.url, read_timeout=30)
    keeper: Talk = [{"role": "user", "content": " ".join(r.choices(WORDS, k=1500))}]
    client.ask(keeper, max_tokens=4, temperature=0)
    threads = [threading.Thread(target=agent.run) for agent in agents]
    for t in threads:
        t.start()
    began = time.monotonic()

    def part() -> float:
        by_time = (time.monotonic() - began) / a.seconds if a.seconds else 0.0
        return max(tally.turns / a.turns if a.turns else 0.0, by_time)

    within = 1.0 if a.kills_throughout else 0.5
    due = sorted(r.uniform(0.02, within - 0.02) for _ in range(a.kills))
    kills: list[Kill | None] = []
    samples: list[tuple[float, dict[str, float]]] = []
    next_look = 0.0
    while (at := part()) < 1.0:
        if due and at >= due[0]:
            due.pop(0)
            how = r.choice([signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
            kills.append(kill(server, client, keeper, how))
            print(f"{tally.turns} turns, {kills[-1]}", file=sys.stderr, flush=True)
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + SAMPLE_S
            samples.append((at, sample(server, client)))
            if len(samples) % 30 == 0:
                print(f"{tally.turns} turns {samples[-1][1]}", file=sys.stderr, flush=True)
        time.sleep(0.05)
    over.set()
    for t in threads:
        t.join(180)
    took_s = time.monotonic() - began
    found = [k for k in kills if k is not None]
    names = sorted({name for _, s in samples for name in s})
    halves = {n: [s[n] for at, s in samples if at >= 0.5 and n in s] for n in names}
    return {
        "turns": tally.turns, "seconds": round(took_s, 1), "agents": a.agents,
        "kinds": dict(tally.kinds), "ends": dict(tally.ends), "errors": dict(tally.errors),
        "kills": {
            "asked": a.kills, "measured": len(found), "throughout": a.kills_throughout,
            "ready_s": _spread([k.ready_s for k in found]),
            "first_token_s": _spread([k.first_token_s for k in found]),
            "read_again": _spread([float(k.prompt - k.cached) for k in found]),
        },
        "second_half": {n: level(v) for n, v in halves.items()},
        "hung": sum(t.is_alive() for t in threads),
    }  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "least": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "most": round(max(values), 3),
    }


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("--turns", type=int, default=0, help="stop after so many")
    ap.add_argument("--seconds", type=float, default=0, help="stop after so long")
    ap.add_argument("--kills", type=int, default=10)
    ap.add_argument("--kills-throughout", action="store_true")
    ap.add_argument("--agents", type=int, default=4)
    ap.add_argument("--memory-budget", default="8MB", help="small, so that memory evicts")
    ap.add_argument("--disk-budget", default="64MB", help="small, so that the disk evicts")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--json", type=Path)
    a = ap.parse_args()
    if not (a.turns or a.seconds):
        ap.error("say how long: --turns or --seconds")
    flags = ["--memory-budget", a.memory_budget, "--disk-budget", a.disk_budget]
    with tempfile.TemporaryDirectory() as tmp:
        server = Server(a.model, Path(tmp), flags)
        try:
            result = soak(a, server)
        finally:
            code = server.end()
    result["exit_code"] = code
    print(json.dumps(result, indent=1))
    if a.json:
        a.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
