"""Agents that wait: `python tests/clients/slow.py CLIENTS_DIR [AGENT ...] [--seconds 700]`.

Each agent has a server of its own, whose model takes that long to read the first prompt. All run at
the same time, as `everwarm launch` starts them, with the timeouts that it sets. Each must get its
answer in one request. With `--cut 300` the first loses its connection after 300 s, as by a timeout
on the way: the agent asks again, and must not wait anew for what was read. Not part of the suite.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from agents import agent
from live import Place, source
from proxy import proxy
from serving import Server, save_talker

from everwarm.cli.clients import CLIENTS
from everwarm.engine.convert import convert
from everwarm.models import ensure_default

DONE = "All is done."


def wait(
    name: str,
    path: str,
    model: Path,
    at: Path,
    seconds: float,
    cut_s: float | None,
    said: dict[str, str],
) -> None:
    """One agent with its server. Says in `said` how it went."""
    place = Place(at / "home", at / "project")
    place.home.mkdir(parents=True)
    place.project.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=place.project, check=True)
    env = {"PATH": path, "HOME": str(place.home), "TERM": "xterm", "LANG": "C.UTF-8"} | source()
    slow = {"SLOW_S": str(seconds), "SLOW_STEP_S": str(min(35, seconds / 5))}
    command = [sys.executable, str(Path(__file__).with_name("slow_server.py")), "serve", str(model)]
    flags = ["--port", "0", "--forced-replies", "--prefill-step", "64", "--no-disk"]
    serving = subprocess.Popen(
        [*command, *flags, "--no-remember"],
        env=os.environ | slow,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        said[name] = _asked(name, serving, place, env, seconds, cut_s)
    finally:
        serving.terminate()
        serving.wait(60)
    print(name, said[name], flush=True)


def _asked(
    name: str,
    serving: subprocess.Popen[str],
    place: Place,
    env: dict[str, str],
    seconds: float,
    cut_s: float | None,
) -> str:
    assert serving.stdout is not None
    server = Server(int(serving.stdout.readline().split(":")[-1].split("/")[0]))
    one = agent(name)
    out = place.home / "said.txt"  # a file: what an agent leaves running may hold a pipe open
    with proxy(server.port) as (url, dictation), out.open("w") as file:
        dictation.replies = [f"<think>Well.</think>{DONE}"]
        dictation.cut_s = cut_s or math.inf
        own = one.ask("first", ["Look around."], place)
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "everwarm", "launch", name, "--url", url, "--", *own],
            cwd=place.project,
            env=env | one.env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(seconds + 900)  # a busy machine reads long besides
        finally:
            end_group(process.pid)
            one.end(place.home)
        took = time.monotonic() - begun
        turns = server.call("GET", "/api/turns?limit=100")[1]["turns"]
    good, how = judged(turns, seconds, cut_s)
    good = good and DONE in out.read_text()
    text = "" if good else f"\n{out.read_text()[-2000:]}"
    return f"{'good' if good else 'BAD'}: {took:.0f} s, {how}{text}"


def judged(turns: list[dict[str, Any]], seconds: float, cut_s: float | None) -> tuple[bool, str]:
    """Whether one request waited through it all; or, after the cut, read only what was left."""
    left = [t for t in turns if t["finish"] == "cancelled"]
    longest = max((t["ttft_s"] for t in turns if t not in left), default=0)
    how = f"waited {longest:.0f} s for its first token, {len(turns)} requests, {len(left)} given up"
    if cut_s is None:
        return not left and longest >= 0.9 * seconds, how
    lost = sum(t["prefilled_tokens"] - t["unseen_tokens"] for t in turns)
    again = max((t["cached_tokens"] for t in turns), default=0)
    how += f", asking again found {again:,} tokens read; {lost} tokens were read twice"
    return len(left) == 1 and again > 0 and lost == 0, how


def end_group(pid: int) -> None:
    """End what an agent left behind it."""
    try:
        os.killpg(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", type=Path)
    parser.add_argument("agents", nargs="*", metavar="AGENT", default=[])
    parser.add_argument("--seconds", type=float, default=700)
    parser.add_argument("--cut", type=float)
    args = parser.parse_args()
    home = os.environ.get("EVERWARM_TEST_HOME") or Path.home() / ".everwarm"
    smollm2 = ensure_default(Path(home), convert=convert)
    path = f"{args.clients.absolute() / 'node_modules' / '.bin'}:{os.environ['PATH']}"
    said: dict[str, str] = {}
    names = args.agents or list(CLIENTS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        at = Path(folder)
        model = save_talker(at / "model", smollm2)
        threads = [
            threading.Thread(
                target=wait, args=(n, path, model, at / n, args.seconds, args.cut, said)
            )
            for n in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0 if len(said) == len(names) and all(s.startswith("good") for s in said.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
