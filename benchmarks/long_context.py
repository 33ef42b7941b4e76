"""A long agent conversation over HTTP: everwarm, mlx_lm.server and the bare forward, in one run.

    python benchmarks/long_context.py SHAPE [--messages 266] [--turns 6] [--alone] [--out FILE]

Both servers stand at once and are asked in turns. Each turn is asked, then asked again unchanged.
*Bare forward*: on a state of the same length, the suffix less one token in one call (cut where
everwarm cuts it), then one token, with greedy sampling, in this process. `--alone`: without
mlx_lm.server and what is only compared with it. Times are medians in ms;
`less_render` is time to first token less rendering and tokenizing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import shapes  # isort: skip  (chooses the BLAS before mlx)
import mlx.core as mx
import mlx_lm
from mlx_lm.models.cache import make_prompt_cache

from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.engine import layers
from everwarm.models import ensure_default

REPLY_TOKENS = 16
PEER = (
    "from everwarm.engine.compat import enable_fast_blas; enable_fast_blas(); "
    "from mlx_lm.server import main; main()"
)


class Bare:
    """The model alone, on a state as long as the conversation."""

    def __init__(self, path: Path, length: int) -> None:
        self.model: Any = mlx_lm.load(str(path))[0]
        self.caches = make_prompt_cache(self.model)
        self.leaves = layers.leaves(self.caches)
        for at in range(0, length, 512):
            self.read([(i * 7919) % 40_000 for i in range(at, min(at + 512, length))])
        for c in self.leaves:
            if layers.kind(c) == "cuttable":
                layers.grow(c, length + 8192)

    def read(self, ids: list[int]) -> mx.array:
        logits: mx.array = self.model(mx.array([ids]), cache=self.caches)
        mx.eval([a for c in self.leaves for a in layers.arrays(c)])
        return logits

    def suffix_ms(self, n: int, cuts: list[int]) -> float:
        """Read `n` tokens, the last alone; `cuts` are offsets in the suffix."""
        ids = [(i * 104_729) % 40_000 for i in range(n)]
        began = time.perf_counter()
        last = 0
        for cut in [*[c for c in cuts if 0 < c < n - 1], n - 1]:
            if cut > last:
                self.read(ids[last:cut])
            last = cut
        logits = self.model(mx.array([ids[-1:]]), cache=self.caches)
        mx.eval(mx.argmax(logits[:, -1, :], axis=-1))
        return 1000 * (time.perf_counter() - began)


@contextmanager
def server(command: list[str]) -> Iterator[str]:
    """Run a server on a free port; gives its URL once it answers, ends it by its pid."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, *command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert child.poll() is None, f"{command} ended"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(60)


class Side:
    """One server with its own copy of the conversation: each gets its own replies back."""

    def __init__(self, url: str, model: str, n_messages: int) -> None:
        self.client = ChatClient(url)
        self.model = model
        self.messages = shapes.conversation(n_messages)
        self.rows: dict[str, list[dict[str, Any]]] = {
            "first": [],
            "turn": [],
            "again": [],
            "edit": [],
            "other": [],
        }

    def ask(self, kind: str, n: int) -> dict[str, Any]:
        if kind == "turn":
            self.messages.append({"role": "assistant", "content": self.reply})
            self.messages.append({"role": "user", "content": shapes.question(n)})
        params = {"model": self.model, "tools": shapes.TOOLS, "temperature": 0}
        got = self.client.ask(self.messages, max_tokens=REPLY_TOKENS, **params)
        assert got.ttft_s is not None
        self.reply = got.text
        row = {
            "ttft_ms": 1000 * got.ttft_s,
            "prompt_tokens": got.prompt_tokens,
            "prefilled_tokens": got.prefilled_tokens,
        }
        self.rows[kind].append(row)
        return row


class Ours(Side):
    """everwarm: its turn record says where the time went."""

    def ask(self, kind: str, n: int) -> dict[str, Any]:
        row = super().ask(kind, n)
        record = self.client.get("/api/turns?limit=1")["turns"][0]
        for phase in ("parse_s", "render_s", "wait_s", "restore_s", "prefill_s", "ttft_s"):
            row[phase.replace("_s", "_ms") if phase != "ttft_s" else "inner_ttft_ms"] = (
                1000 * record[phase]
            )
        row["less_render_ms"] = row["ttft_ms"] - row["render_ms"]
        row["wire_ms"] = row["ttft_ms"] - row["inner_ttft_ms"]
        row["cache_bytes"] = self.client.get("/api/ps")["engine"]["cache_bytes"]
        row["prefilled_tokens"] = record["prefilled_tokens"]
        return row


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    keys = [k for k in rows[0] if k != "cache_bytes"] if rows else []
    return {k: round(statistics.median(r[k] for r in rows), 2) for k in keys}


def run(shape: str, n_messages: int, turns: int, *, is_alone: bool) -> dict[str, Any]:
    home = Settings().home
    tokenizer = ensure_default(home, convert=shapes.no_convert)
    with tempfile.TemporaryDirectory() as tmp:
        path = shapes.make_model(shape, Path(tmp) / shape, tokenizer)
        ours_command = ["-m", "everwarm", "serve", str(path), "--no-remember", "--no-disk"]
        theirs_command = ["-c", PEER, "--model", str(path), "--prefill-step-size", "512"]
        with server(ours_command) as a:
            ours = Ours(a, shape, n_messages)
            if is_alone:
                return _against_bare(path, ours, [], turns)
            with server(theirs_command) as b:
                return _measure(path, ours, Side(b, str(path), n_messages), turns)


def _measure(path: Path, ours: Ours, theirs: Side, turns: int) -> dict[str, Any]:
    found = _against_bare(path, ours, [theirs], turns)
    theirs_m = {k: medians(v) for k, v in theirs.rows.items() if v}
    ours_m = found["everwarm"]
    return found | {
        "mlx_lm.server": theirs_m,
        "turn_ratio": round(ours_m["turn"]["ttft_ms"] / theirs_m["turn"]["ttft_ms"], 3),
        "again_ratio": round(ours_m["again"]["ttft_ms"] / theirs_m["again"]["ttft_ms"], 3),
        "everwarm_edit": _edit(ours),
        "mlx_lm.server_edit": _edit(theirs),
        "everwarm_return": _return(ours),
    }


def _against_bare(path: Path, ours: Ours, others: list[Side], turns: int) -> dict[str, Any]:
    first = [side.ask("first", 0) for side in (ours, *others)]
    print(json.dumps(first), file=sys.stderr)
    bare = Bare(path, int(first[0]["prompt_tokens"]))
    print("measuring", file=sys.stderr, flush=True)
    bare_rows: list[float] = []
    again_rows: list[float] = []
    for n in range(1, turns + 1):
        row = ours.ask("turn", n)
        for side in others:
            side.ask("turn", n)
        cuts = [] if path.name.startswith("llama") else _cuts(int(row["prefilled_tokens"]))
        bare_rows.append(bare.suffix_ms(int(row["prefilled_tokens"]), cuts))
        again = ours.ask("again", n)
        for side in others:
            side.ask("again", n)
        again_rows.append(bare.suffix_ms(int(again["prefilled_tokens"]), []))
    ours_m = {k: medians(v) for k, v in ours.rows.items() if v}
    bare_ms = statistics.median(bare_rows)
    growth = [r["cache_bytes"] for r in ours.rows["turn"]]
    return {
        "shape": path.name,
        "messages": len(ours.messages) - 2 * turns,
        "mlx": mx.__version__,
        "mlx_lm": mlx_lm.__version__,
        "turns": turns,
        "everwarm": ours_m,
        "bare_turn_ms": round(bare_ms, 1),
        "bare_again_ms": round(statistics.median(again_rows), 1),
        "over_bare_ms": round(ours_m["turn"]["less_render_ms"] - bare_ms, 1),
        "whole_over_bare_ms": round(ours_m["turn"]["ttft_ms"] - bare_ms, 1),
        "cache_bytes_per_turn": [b - a for a, b in itertools.pairwise(growth)],
    }


def _edit(side: Side) -> dict[str, float]:
    """Change a tool's result about ten messages before the last question, and ask again."""
    kept, reply = side.messages, side.reply
    at = max(i for i, m in enumerate(kept[:-20]) if m["role"] == "tool")
    changed = {**kept[at], "content": kept[at]["content"] + "\nchanged"}
    side.messages = [*kept[:at], changed, *kept[at + 1 :]]
    row = side.ask("edit", 0)
    side.messages, side.reply = kept, reply
    return {k: round(row[k], 2) for k in ("ttft_ms", "prompt_tokens", "prefilled_tokens")}


def _return(side: Side) -> dict[str, float]:
    """Hold ten other sessions, then come back to the long one."""
    kept, reply = side.messages, side.reply
    for n in range(10):
        side.messages = shapes.conversation(26, seed=n + 1)
        side.ask("other", n)
    side.messages, side.reply = kept, reply
    row = side.ask("turn", 999)
    return {k: round(row[k], 2) for k in ("ttft_ms", "prompt_tokens", "prefilled_tokens")}


def _cuts(n: int) -> list[int]:
    """Where everwarm cuts a suffix: before the user message and before the scaffold."""
    return [2, n - 3]


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("shape", choices=list(shapes.SHAPES))
    ap.add_argument("--messages", type=int, default=266)
    ap.add_argument("--turns", type=int, default=6)
    ap.add_argument("--alone", action="store_true")
    ap.add_argument("--out", type=Path)
    a = ap.parse_args()
    text = json.dumps(run(a.shape, a.messages, a.turns, is_alone=a.alone), indent=2)
    print(text)
    if a.out:
        a.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
