"""A long conversation, the server killed and started again: what does the next turn cost?

    python benchmarks/restart.py SHAPE [--messages 266] [--out FILE]

Four times to first token of the same kind of turn: cold, warm, after the restart, and warm again;
beside them the bare sequential read of the same files (page cache dropped before each).
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import shapes  # isort: skip  (chooses the BLAS before mlx)
import mlx.core as mx

from everwarm.client import ChatClient
from everwarm.config import Settings
from everwarm.models import ensure_default


@contextmanager
def server(path: Path, home: Path, end: int) -> Iterator[ChatClient]:
    child = subprocess.Popen(
        [sys.executable, "-m", "everwarm", "serve", str(path), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"EVERWARM_HOME": str(home)},
    )
    assert child.stdout is not None
    try:
        yield ChatClient(child.stdout.readline().split()[-1])
    finally:
        child.send_signal(end)
        child.wait(60)
        child.stdout.close()


def ask(client: ChatClient, messages: list[dict[str, Any]]) -> dict[str, Any]:
    got = client.ask(messages, max_tokens=16, temperature=0, tools=shapes.TOOLS)
    turn = client.get("/api/turns?limit=1")["turns"][0]
    messages.append({"role": "assistant", "content": got.text})
    assert got.ttft_s is not None
    keys = ("prefilled_tokens", "cached_tokens", "cached_from", "restore_s", "prefill_s")
    return {"ttft_ms": round(1000 * got.ttft_s, 1), **{k: turn[k] for k in keys}}


def files(home: Path) -> list[Path]:
    return sorted((home / "cache" / "pieces").glob("*.kv"))


def drop(paths: list[Path]) -> None:
    for p in paths:
        with p.open("rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(paths: list[Path]) -> float:
    """Seconds to read these files one after the other, from the disk."""
    drop(paths)
    room = bytearray(4 << 20)
    began = time.perf_counter()
    for p in paths:
        with p.open("rb", buffering=0) as f:
            while f.readinto(room):
                pass
    return time.perf_counter() - began


def run(path: Path, home: Path, n_messages: int) -> dict[str, Any]:
    messages = shapes.conversation(n_messages)
    out: dict[str, Any] = {"shape": path.name, "mlx": mx.__version__}
    with server(path, home, signal.SIGKILL) as client:
        out["cold"] = ask(client, messages)
        messages.append({"role": "user", "content": shapes.question(1)})
        out["warm"] = ask(client, messages)
        time.sleep(1.0)
        out["disk"] = {k: v for k, v in client.get("/api/ps")["engine"].items() if "disk" in k}
    paths = files(home)
    read_s = read_all(paths)
    drop(paths)
    with server(path, home, signal.SIGTERM) as client:
        messages.append({"role": "user", "content": shapes.question(2)})
        out["restarted"] = ask(client, messages)
        messages.append({"role": "user", "content": shapes.question(3)})
        out["warm_again"] = ask(client, messages)
    out["bare_read_ms"] = round(1000 * read_s, 1)
    out["bytes"] = sum(p.stat().st_size for p in paths)
    out["files"] = len(paths)
    restore = out["restarted"]["restore_s"]
    out["restore_over_bare_read"] = round(read_s / restore, 3) if restore else None
    out["cold_over_restarted"] = round(out["cold"]["ttft_ms"] / out["restarted"]["ttft_ms"], 1)
    return out


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("shape", choices=list(shapes.SHAPES))
    ap.add_argument("--messages", type=int, default=266)
    ap.add_argument("--out", type=Path)
    a = ap.parse_args()
    tokenizer = ensure_default(Settings().home, convert=shapes.no_convert)
    with tempfile.TemporaryDirectory() as tmp:
        path = shapes.make_model(a.shape, Path(tmp) / a.shape, tokenizer)
        text = json.dumps(run(path, Path(tmp) / "home", a.messages), indent=2)
    print(text)
    if a.out:
        a.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
