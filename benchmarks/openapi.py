"""A running server against its own OpenAPI description, by the command `schemathesis`.

    python benchmarks/openapi.py MODEL_DIR [--examples 100] [--seed 0] [--key KEY]

Requests are made of the description, right and wrong ones, for every path and method. Beside them
one client after another has the same story told. Counted: answers with 5xx, answers of a kind, with
a status or a shape that is not described, wrong requests that were accepted, stories that came out
differently. It ends with 1 where there is one.

Not asked: that every right request is accepted. What cannot be read (a conversation with no end, a
session that there is not) is refused, and no description says which those are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
STORY = " ".join(str(n) for n in range(50))


def told(root: str, key: str) -> str:
    """A stream's text, from beginning to end."""
    body = {
        "messages": [{"role": "user", "content": "Count."}],
        "stream": True,
        "everwarm": {"reply": STORY},
    }
    headers = {"content-type": "application/json", "x-api-key": key}
    asked = urllib.request.Request(
        f"{root}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(asked) as answer:
        *frames, end = answer.read().decode().strip().split("\n\n")
    assert end == "data: [DONE]", end
    chunks: list[Any] = [json.loads(f.removeprefix("data: ")) for f in frames]
    return "".join(c["delta"].get("content") or "" for k in chunks for c in k["choices"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", default="")
    parser.add_argument("--path", help="only this path")
    parser.add_argument("--phases", default="coverage,fuzzing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"EVERWARM_HOME": home}
        env |= {"EVERWARM_API_KEY": args.key} if args.key else {}
        flags = ["--port", "0", "--forced-replies", "--context-length", "160", "--no-disk"]
        server = subprocess.Popen(
            [sys.executable, "-m", "everwarm", "serve", str(args.model), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        assert server.stdout is not None
        root = f"http://127.0.0.1:{int(server.stdout.readline().split(':')[-1].split('/')[0])}"
        try:
            return examine(root, home, args)
        finally:
            server.terminate()
            server.wait(60)
            server.stdout.close()


def examine(root: str, home: str, args: argparse.Namespace) -> int:
    """Run schemathesis with stories beside it."""
    over = threading.Event()
    stories: list[str] = []

    def tell() -> None:
        while not over.is_set():
            stories.append(told(root, args.key))
            over.wait(1)

    beside = threading.Thread(target=tell)
    beside.start()
    command = [
        *("schemathesis", "run", f"{root}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--phases", args.phases),
        *("--max-examples", str(args.examples), "--seed", str(args.seed)),
        *("--request-timeout", "120", "--suppress-health-check", "all", "--continue-on-failure"),
        *("--no-color", "--warnings", "off"),
        *(("-H", f"X-Api-Key:{args.key}") if args.key else ()),
        *(("--include-path", args.path) if args.path else ()),
    ]
    code = subprocess.run(command, cwd=home).returncode
    over.set()
    beside.join()
    wrong = sum(s != STORY for s in stories)
    print(f"stories told beside it: {len(stories)}, wrong ones: {wrong}")
    return 1 if code or wrong or not stories else 0


if __name__ == "__main__":
    sys.exit(main())
