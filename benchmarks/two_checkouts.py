"""The same conversation on two checkouts of everwarm, asked in turns in one run.

    python benchmarks/two_checkouts.py MODEL OLD_CHECKOUT [--tokens 60000] [--turns 12] [--out FILE]

Both servers stand at once. Each turn is asked of both, the order changing from turn to turn, with
a dictated reply; then asked again unchanged. `ratio` is new by old: the median of pairs, and the
quarter of pairs below and above it. Times are in ms.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from everwarm.client import ChatClient

WORDS = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliet",
]
NEW = Path(__file__).parent.parent


@contextmanager
def server(checkout: Path, model: str) -> Iterator[ChatClient]:
    """A server of this checkout, in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        env = dict(os.environ, PYTHONPATH=str(checkout / "src"), EVERWARM_HOME=home)
        command = [sys.executable, "-m", "everwarm", "serve", model, "--port", "0"]
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            try:
                with ChatClient(line.split(" at ")[1].strip().removesuffix("/v1")) as client:
                    yield client
            finally:
                process.terminate()


def text(seed: int, n: int) -> str:
    """About `n` words that no other seed gives."""
    return " ".join(WORDS[(i * 7 + seed * (i % 11)) % len(WORDS)] for i in range(n)) + f" {seed}"


def ask(client: ChatClient, messages: list[dict[str, Any]]) -> tuple[float, float, int]:
    """Time to the first token, and per token after it, in ms; how many tokens were read."""
    reply = client.ask(messages, max_tokens=24, temperature=0, logit_bias={"0": -100, "2": -100})
    assert reply.ttft_s is not None, reply.finish
    return reply.ttft_s * 1e3, 1e3 / (reply.decode_tps or 1e9), reply.prefilled_tokens


def main() -> None:
    args = _arguments()
    found: dict[str, list[tuple[float, float, int]]] = {"old": [], "new": []}
    kinds: list[str] = []
    with server(args.old, args.model) as old, server(NEW, args.model) as new:
        sides = [("old", old), ("new", new)]
        messages: list[dict[str, Any]] = []
        step = args.tokens // 6
        for turn in range(6 + args.turns):
            n = step if turn < 6 else 20
            messages.append({"role": "user", "content": text(turn, n)})
            for kind in ("cold",) if turn < 6 else ("next", "again"):
                for name, client in sides if turn % 2 else sides[::-1]:
                    found[name].append(ask(client, messages))
                kinds.append(kind)
            messages.append({"role": "assistant", "content": f"Reply {turn}."})
            print(f"turn {turn + 1} of {6 + args.turns}", file=sys.stderr)
    rows = {k: _compared(found, [i for i, x in enumerate(kinds) if x == k]) for k in set(kinds)}
    result = json.dumps({"model": Path(args.model).name, "tokens": args.tokens} | rows, indent=1)
    print(result)
    if args.out:
        args.out.write_text(result + "\n")


def _compared(found: dict[str, list[tuple[float, float, int]]], at: list[int]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for i, what in enumerate(("first_token", "per_token")):
        old, new = ([found[side][n][i] for n in at] for side in ("old", "new"))
        ratios = statistics.quantiles([b / a for a, b in zip(old, new, strict=True)], n=4)
        out[what] = {
            "old_ms": round(statistics.median(old), 2),
            "new_ms": round(statistics.median(new), 2),
            "ratio": [round(r, 3) for r in ratios],
        }
    out["tokens_read"] = {side: sum(rows[n][2] for n in at) for side, rows in found.items()}
    return out


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("old", type=Path)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
