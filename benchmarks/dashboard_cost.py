"""Decode speed while somebody looks at the dashboard, against decode speed while nobody does.

    python benchmarks/dashboard_cost.py SHAPE_OR_DIR [--looks 40] [--whole] [--out FILE]

One server, one long reply, and a look every 2 s, as the page looks: the snapshot, and the tree and
the sessions where the snapshot's numbers have changed, and after 30 s (`--whole`: each time). What
a browser needs to draw them is not counted. The server holds sessions, so that there is a tree.

    | a look, and 1 s from there on | the next second, undisturbed | a look …

`cost` is what the reply loses: 1 - tokens of both seconds / twice those of the second one. Five
looks and five times nothing instead of a look take turns: what nothing costs is this machine's
noise. Of all looks of a kind: by sums, and by the median.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shapes  # isort: skip  (chooses the BLAS before mlx)
import mlx.core as mx
from long_context import server

from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.models import ensure_default

EVERY_S, TREE_AT_LEAST_S = 2.0, 30.0
TREE = ("/api/cache/tree", "/api/sessions?limit=64")

GROWING = {
    "memory_bytes",
    "memory_cached_bytes",
    "cache_bytes",
    "cache_promised_bytes",
    "cache_in_flight_bytes",
    "written_today_bytes",
}
"""As in `chat/web/js/dashboard.js`: what changes while a reply is written."""


class Page:
    """An open dashboard."""

    def __init__(self, port: int, *, whole: bool) -> None:
        self.n_trees = self.n_bytes = 0
        self.took_s: list[float] = []
        self._port, self._whole, self._mark, self._drawn = port, whole, "", 0.0

    def look(self) -> None:
        began = time.perf_counter()
        (board,) = self._ask("/api/dashboard")
        mark = _mark(json.loads(board))
        if self._whole or mark != self._mark or began - self._drawn > TREE_AT_LEAST_S:
            self._ask(*TREE)
            self._mark, self._drawn = mark, began
            self.n_trees += 1
        self.took_s.append(time.perf_counter() - began)

    def _ask(self, *paths: str) -> list[bytes]:
        links = [http.client.HTTPConnection("127.0.0.1", self._port) for _ in paths]
        for link, path in zip(links, paths, strict=True):
            link.request("GET", path, headers={"Accept": "application/json"})
        answers = [link.getresponse().read() for link in links]
        for link in links:
            link.close()
        self.n_bytes += sum(map(len, answers))
        return answers


def _mark(board: dict[str, Any]) -> str:
    """As the page's own: what tells one tree from another."""
    counts = {k: v for k, v in (board["memory"] | board["disk"]).items() if k not in GROWING}
    ids = [t["id"] for t in board["running"]]
    return json.dumps([counts, ids, board["totals"]["turns"]])


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

    def two_seconds(self, look: Callable[[], None]) -> tuple[int, int]:
        """Pieces in the second from a look on, and in the one behind it."""
        began, first = time.perf_counter(), self.n
        look()
        time.sleep(max(0.0, began + EVERY_S / 2 - time.perf_counter()))
        middle = self.n
        time.sleep(max(0.0, began + EVERY_S - time.perf_counter()))
        return middle - first, self.n - middle


def cost(pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """What a look costs, in parts of the reply's speed."""
    each = [1 - (a + b) / (2 * b) for a, b in pairs]
    total_a, total_b = (sum(p[i] for p in pairs) for i in (0, 1))
    return {
        "looks": len(pairs),
        "tokens_per_s": round((total_a + total_b) / (EVERY_S * len(pairs)), 1),
        "cost": round(1 - (total_a + total_b) / (2 * total_b), 4),
        "median_cost": round(statistics.median(each), 4),
    }


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
    looked_at, alone = [], []
    for i in range(2 * a.looks):
        is_looked_at = i // 5 % 2 == 0
        pair = reply.two_seconds(page.look if is_looked_at else lambda: None)
        (looked_at if is_looked_at else alone).append(pair)
    return {
        "mlx": mx.__version__,
        "nodes": nodes,
        "tree_each_time": a.whole,
        "trees": page.n_trees,
        "bytes_per_look": page.n_bytes // len(page.took_s),
        "median_look_ms": round(1000 * statistics.median(page.took_s), 1),
        "looked_at": cost(looked_at),
        "alone": cost(alone),
    }


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("model", help="a shape of shapes.py, or a model's directory")
    ap.add_argument("--looks", type=int, default=40)
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
