"""Decode speed while somebody looks at the dashboard, against decode speed while nobody does.

    python benchmarks/dashboard_cost.py SHAPE_OR_DIR [--pairs 10] [--window 6] [--out FILE]

One server, one long reply. Windows with and without an open dashboard take turns while it is
written; each window of one kind is compared with those of the other kind around it, which are
equally far into the reply. The dashboard is the page's requests, as it sends them: the snapshot,
again 2 s after its answer; the tree and the sessions where the snapshot's numbers have changed, and
after 30 s. What a browser needs to draw them is not counted. The server holds sessions, so that
there is a tree to show. `--whole`: the tree with each snapshot.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import shapes  # isort: skip  (chooses the BLAS before mlx)
import mlx.core as mx
from long_context import server

from everwarm.bench.client import ChatClient
from everwarm.config import Settings
from everwarm.models import ensure_default

EVERY_S, TREE_AT_LEAST_S = 2.0, 30.0
TREE = ("/api/cache/tree", "/api/sessions?limit=64")


class Page:
    """An open dashboard. `is_shown` clear: its tab is hidden, and it asks for nothing."""

    def __init__(self, port: int, *, whole: bool) -> None:
        self.is_shown = threading.Event()
        self.n_polls = self.n_trees = self.n_bytes = 0
        self.busy_s = 0.0
        self._whole, self._mark, self._drawn = whole, "", 0.0
        self._links = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(2)]
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self.is_shown.wait()
            began = time.perf_counter()
            (board,) = self._ask("/api/dashboard")
            mark = _mark(json.loads(board))
            if self._whole or mark != self._mark or began - self._drawn > TREE_AT_LEAST_S:
                self._ask(*TREE)
                self._mark, self._drawn = mark, began
                self.n_trees += 1
            self.n_polls += 1
            self.busy_s += time.perf_counter() - began
            time.sleep(EVERY_S)

    def _ask(self, *paths: str) -> list[bytes]:
        pairs = list(zip(self._links, paths, strict=False))
        for link, path in pairs:
            link.request("GET", path, headers={"Accept": "application/json"})
        answers = [link.getresponse().read() for link, _ in pairs]
        self.n_bytes += sum(map(len, answers))
        return answers


def _mark(board: dict[str, Any]) -> str:
    """As the page's own: what tells one tree from another."""
    held = {k: v for k, v in board["memory"].items() if k != "memory_bytes"}
    kept = {k: v for k, v in board["disk"].items() if k != "written_today_bytes"}
    ids = [t["id"] for t in board["running"]]
    return json.dumps([held, kept, ids, board["totals"]["turns"]])


class Counted:
    """A reply that is being written: how many pieces of it came so far."""

    def __init__(self, port: int, body: dict[str, Any]) -> None:
        self.n = 0
        self._link = http.client.HTTPConnection("127.0.0.1", port)
        self._link.request("POST", "/v1/chat/completions", json.dumps(body))
        self._answer = self._link.getresponse()
        assert self._answer.status == 200, self._answer.read()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while line := self._answer.readline():
            self.n += line.startswith(b"data:")

    def rate(self, seconds: float) -> float:
        """Pieces per second from now on, for about so long."""
        first, began = self.n, time.perf_counter()
        time.sleep(seconds)
        return (self.n - first) / (time.perf_counter() - began)


def fill(client: ChatClient, n_sessions: int, n_words: int) -> None:
    """Sessions of two turns with a system prompt that they share."""
    for n in range(n_sessions):
        told = " ".join(f"word{n}" for _ in range(n_words))
        messages = [{"role": "system", "content": "You are brief. " * 40}]
        for text in (told, "Go on."):
            messages.append({"role": "user", "content": text})
            got = client.ask(messages, max_tokens=8)
            messages.append({"role": "assistant", "content": got.text})


def measure(port: int, a: argparse.Namespace) -> dict[str, Any]:
    with ChatClient(f"http://127.0.0.1:{port}") as client:
        fill(client, a.sessions, a.words)
        nodes = len(client.get("/api/cache/tree")["nodes"])
    body = {
        "messages": [{"role": "user", "content": "Write on. " * (a.length // 4)}],
        "stream": True,
        "everwarm": {"reply": "on and " * 30_000},
    }
    reply, page = Counted(port, body), Page(port, whole=a.whole)
    while reply.n < 20:
        time.sleep(0.1)
    rates = []
    for i in range(2 * a.pairs + 1):
        if i % 2:
            page.is_shown.set()
        rates.append(reply.rate(a.window))
        page.is_shown.clear()
        print(f"{'looked at' if i % 2 else 'alone':10} {rates[-1]:8.2f}/s", file=sys.stderr)
    around = [(x + y) / 2 for x, y in zip(rates[::2], rates[2::2], strict=False)]
    ratios = [on / off for on, off in zip(rates[1::2], around, strict=True)]
    # The same figure of windows that nobody looked in says how far chance alone goes.
    alone = [
        m / ((x + y) / 2) for x, m, y in zip(rates[:-4:2], rates[2:-2:2], rates[4::2], strict=True)
    ]
    return {
        "mlx": mx.__version__,
        "nodes": nodes,
        "polls": page.n_polls,
        "trees": page.n_trees,
        "bytes_per_poll": page.n_bytes // max(page.n_polls, 1),
        "ms_per_poll": round(1000 * page.busy_s / max(page.n_polls, 1), 1),
        "alone_tps": [round(x, 2) for x in rates[::2]],
        "looked_at_tps": [round(x, 2) for x in rates[1::2]],
        "ratios": [round(x, 4) for x in ratios],
        "median_ratio": round(statistics.median(ratios), 4),
        "median_ratio_of_none": round(statistics.median(alone), 4),
    }


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model", help="a shape of shapes.py, or a model's directory")
    ap.add_argument("--pairs", type=int, default=10)
    ap.add_argument("--window", type=float, default=6.0)
    ap.add_argument("--sessions", type=int, default=12)
    ap.add_argument("--words", type=int, default=100)
    ap.add_argument("--length", type=int, default=400, help="tokens of the prompt, about")
    ap.add_argument("--whole", action="store_true", help="ask for the tree each time")
    ap.add_argument("--out", type=Path)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(a.model)
        if a.model in shapes.SHAPES:
            tokenizer = ensure_default(Settings().home, convert=shapes.no_convert)
            path = shapes.make_model(a.model, Path(tmp) / a.model, tokenizer)
        os.environ["EVERWARM_HOME"] = f"{tmp}/home"  # its sessions are nobody's
        flags = ["--no-disk", "--forced-replies"]
        with server(["-m", "everwarm", "serve", str(path), *flags]) as url:
            result = {"model": path.name} | measure(int(url.split(":")[-1]), a)
    text = json.dumps(result, indent=2)
    print(text)
    if a.out:
        a.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
