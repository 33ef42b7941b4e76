"""Kill a server at random moments, start it again, go on with the same conversation.

    python benchmarks/kill.py MODEL_DIR [--times 300] [--seed 0]

A second server, never killed and without a cache, is asked the same. Counted: wrong answers (text
or prompt length differ), turns refused, leftovers of unfinished files after a start, pieces that
cannot be read at the end. Run it with EVERWARM_BLAS=reference, where equal prompts give equal bits.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from everwarm.client import ChatClient, ChatReply
from everwarm.errors import EverwarmError

LONGEST = 24
WORDS = ["lake", "water", "stone", "bridge", "river", "boat", "wind", "light", "winter", "road"]


class Server:
    """One server process."""

    def __init__(self, model: Path, home: Path, *flags: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"EVERWARM_HOME": str(home)},
        )
        assert self._child.stdout is not None
        self.client = ChatClient(self._child.stdout.readline().split()[-1])

    def end(self, how: int) -> None:
        self._child.send_signal(how)
        self._child.wait(60)
        assert self._child.stdout is not None
        self._child.stdout.close()
        self.client.close()


def ask(client: ChatClient, messages: list[dict[str, Any]]) -> ChatReply | None:
    try:
        return client.ask(messages, max_tokens=12, temperature=0)
    except EverwarmError:
        return None


def killed_turn(server: Server, messages: list[dict[str, Any]], after_s: float) -> ChatReply | None:
    """Ask, and kill the server so many seconds later. The reply, if it was whole by then."""
    got: list[ChatReply | None] = []
    other = [{"role": "user", "content": "Somebody else. " + " ".join(WORDS * 20)}]
    threads = [
        threading.Thread(target=lambda: got.append(ask(server.client, messages))),
        threading.Thread(target=lambda: ask(ChatClient(server.client.url), other)),
    ]
    for t in threads:
        t.start()
    time.sleep(after_s)
    server.end(signal.SIGKILL)
    for t in threads:
        t.join()
    return got[0]


def run(model: Path, times: int, seed: int, tmp: Path) -> dict[str, int]:
    r = random.Random(seed)
    home = tmp / "home"
    count = {"killed": 0, "answered": 0, "wrong": 0, "lost_tokens": 0, "leftovers": 0, "warm": 0}
    reference = Server(model, tmp / "other", "--no-cache")
    history: list[dict[str, Any]] = []
    for _ in range(times):
        if len(history) >= LONGEST:
            history = []
        question = " ".join(r.choices(WORDS, k=r.randint(5, 120)))
        messages = [*history, {"role": "user", "content": question}]
        server = Server(model, home)
        count["leftovers"] += len(list((home / "cache" / "pieces").glob("*.tmp")))
        reply = killed_turn(server, messages, r.uniform(0.0, 0.6))
        count["killed"] += 1
        if reply is None or reply.finish is None:
            continue
        right = ask(reference.client, messages)
        assert right is not None
        count["answered"] += 1
        count["warm"] += reply.cached_tokens > 0
        count["wrong"] += reply.text != right.text
        count["lost_tokens"] += reply.prompt_tokens != right.prompt_tokens
        history = [*messages, {"role": "assistant", "content": reply.text}]
    reference.end(signal.SIGTERM)
    verify = subprocess.run(
        [sys.executable, "-m", "everwarm", "cache", "verify"],
        env=os.environ | {"EVERWARM_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    print(verify.stdout.strip(), file=sys.stderr)
    return count | {"damaged": verify.returncode}


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("--times", type=int, default=300)
    ap.add_argument("--seed", type=int, default=0)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        print(json.dumps(run(a.model, a.times, a.seed, Path(tmp)), indent=2))


if __name__ == "__main__":
    main()
