"""What one hostile or huge body does to everybody else on a running server.

    python benchmarks/hostile_bodies.py MODEL_DIR [--only TEXT] [--alone] [--out FILE]

A client in a process of its own has long replies streamed, one after the other, and asks `/health`
twenty times a second. Beside them each body is sent once, all of them within the largest size that
there may be. Written down for each: its answer, the largest gap within a stream, the slowest
`/health`, and the server's memory before, at its highest, and a moment later. The first body is a
short valid one: what a gap owes to the engine, which two replies share, and not to the body. So
take a model whose step is short, as `everwarm bench make-model` writes them.

A stream takes memory of its own as it grows. `--alone` has none beside: it says what a body leaves
behind, when it is sent twice.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

MB = 2**20
FULL = 32 * MB - 4096
REST_S = 3.0
"""How long the server may take to give memory back."""
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
COMPLETIONS, COUNT, IMPORT = (
    "/v1/completions",
    "/v1/messages/count_tokens",
    "/api/sessions/import",
)
FORMS = {
    CHAT: b'{"max_tokens":1,"messages":[%s]}',
    MESSAGES: b'{"max_tokens":1,"messages":[%s]}',
    COUNT: b'{"messages":[%s]}',
    RESPONSES: b'{"max_output_tokens":1,"store":false,"input":[%s]}',
    COMPLETIONS: b'{"max_tokens":1,"prompt":[%s]}',
    IMPORT: b'{"everwarm":1,"branches":[{"name":"main","head":null}],"messages":[%s]}',
}
SAYS = b'{"role":"user","content":"x"}'
IMPORTED = b'{"id":"a","role":"user","parts":[{"type":"text","text":"x"}]}'
ONE = b'{"max_tokens":1,"messages":[{"role":"user","content":"x"}],%s}'
Make = Callable[[], bytes]


def many(path: str, item: bytes, n: int) -> Make:
    return lambda: FORMS[path] % b",".join([item] * min(n, FULL // (len(item) + 1)))


def text(path: str, piece: bytes) -> Make:
    said = b'"' + piece * (FULL // len(piece)) + b'"'
    item = b'{"role":"user","content":%s}' % said if path != COMPLETIONS else said
    return lambda: FORMS[path] % item


def one(field: bytes) -> Make:
    return lambda: ONE % field


def tool(parameters: bytes) -> bytes:
    return (
        b'"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":%s}}]'
        % parameters
    )


def schema(shape: bytes) -> Make:
    return one(
        b'"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":%s}}' % shape
    )


def bodies() -> dict[str, tuple[str, Make]]:
    """Path and maker of each body, by what it is."""
    made: dict[str, tuple[str, Make]] = {"a short valid one": (CHAT, one(b'"user":"x"'))}
    for path in FORMS:
        made[f"{path}: a million zeros"] = path, many(path, b"0", 10**6)
        made[f"{path}: 32 MB of zeros"] = path, many(path, b"0", FULL)
        made[f"{path}: 32 MB of empty objects"] = path, many(path, b"{}", FULL)
        item = IMPORTED if path == IMPORT else b"7" if path == COMPLETIONS else SAYS
        made[f"{path}: 32 MB of valid elements"] = path, many(path, item, FULL)
        most = {IMPORT: 20_000, COMPLETIONS: 500_000}.get(path, 60_000)
        made[f"{path}: as many valid elements as are read"] = path, many(path, item, most)
        if path != IMPORT:
            made[f"{path}: one long text"] = path, text(path, b"hello world ")
    keys = b",".join(b'"k%d":1' % n for n in range(2_500_000))[:FULL]
    few = b",".join(b'"k%d":1' % n for n in range(200_000))
    names = b",".join(b'"k%d":{"type":"string"}' % n for n in range(60_000))
    made |= {
        "a list 16 million deep": (CHAT, lambda: b"[" * FULL),
        "an object as deep as there may be": (
            CHAT,
            one(tool(b'{"a":' * 240 + b"1" + b"}" * 240)),
        ),
        "a number of 32 million digits": (CHAT, one(b'"seed":' + b"1" * FULL)),
        "a key of 32 MB": (CHAT, one(b'"' + b"k" * FULL + b'":1')),
        "32 MB of unknown keys": (CHAT, one(keys.rpartition(b",")[0])),
        "200,000 unknown keys": (CHAT, one(few)),
        "one key, millions of times": (CHAT, one(b",".join([b'"n":1'] * 5_000_000))),
        "32 MB of blanks": (CHAT, one(b" " * FULL + b'"n":1')),
        "32 MB of quotes": (CHAT, lambda: b'"' * FULL),
        "32 MB of backslashes": (CHAT, one(b'"user":"' + b"\\" * FULL + b'"')),
        "32 MB of escaped quotes, ignored": (CHAT, one(b'"user":"' + b'\\"' * (FULL // 2) + b'"')),
        "32 MB of text in a refused field": (CHAT, one(b'"who":"' + b"x" * FULL + b'"')),
        "40,000 tools": (CHAT, one(b'"tools":[' + b",".join([b"{}"] * 40_000) + b"]")),
        "a schema of 60,000 properties": (CHAT, schema(b'{"properties":{%s}}' % names)),
        "a tool of 60,000 properties": (CHAT, one(tool(b'{"properties":{%s}}' % names))),
        "a value of 5 MB": (CHAT, schema(b'{"enum":["' + b"x" * 5 * MB + b'"]}')),
        "a pattern of 1 MB": (CHAT, schema(b'{"type":"string","pattern":"%s"}' % (b"a" * MB))),
        "a reference to itself": (CHAT, schema(b'{"$ref":"#"}')),
        "50,000 metadata": (
            RESPONSES,
            lambda: (
                b'{"input":"x","max_output_tokens":1,"metadata":{%s}}'
                % b",".join(b'"k%d":1' % n for n in range(50_000))
            ),
        ),
    }
    return made


class Beside:
    """The stream and `/health`, on threads: when each last said something."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.over = threading.Event()
        self.events: list[tuple[int, float]] = []
        self.health: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=f) for f in (self._stream, self._probe)]

    def __enter__(self) -> Beside:
        for t in self._threads:
            t.start()
        while len(self.events) < 50:
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for t in self._threads:
            t.join()

    def between(self, start: float, end: float) -> dict[str, float]:
        """The largest gap and the slowest answer that reach into a span of time."""
        told = [(reply, t) for reply, t in list(self.events) if t <= end]
        gaps = [b - a for (x, a), (y, b) in pairwise(told) if b >= start and x == y]
        slow = [s for at, s in list(self.health) if at + s >= start and at <= end]
        return {"gap_s": round(max(gaps), 3), "health_s": round(max(slow, default=0.0), 3)}

    def _stream(self) -> None:
        body = {
            "messages": [{"role": "user", "content": "Tell a long story."}],
            "max_tokens": 6000,
            "stream": True,
            "logit_bias": {"2": -100},
        }
        for reply in count():
            if self.over.is_set():
                return
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
            connection.request("POST", CHAT, json.dumps(body))
            for line in connection.getresponse():
                if b'"content":"' in line.replace(b'"content":""', b""):
                    self.events.append((reply, time.perf_counter()))
                if self.over.is_set():
                    break
            connection.close()

    def _probe(self) -> None:
        while not self.over.is_set():
            at = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
            connection.request("GET", "/health")
            connection.getresponse().read()
            connection.close()
            self.health.append((at, time.perf_counter() - at))
            time.sleep(max(0.0, 0.05 - (time.perf_counter() - at)))


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    run = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(run.stdout) * 1024


def sent(port: int, path: str, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", path, body)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    text = json.loads(said).get("error", {}).get("message", "") if answer.status >= 400 else ""
    return answer.status, text[:200]


def tried(port: int, pid: int, beside: Beside, path: str, make: Make) -> dict[str, Any]:
    """One body, and what it did to the others."""
    body = make()
    time.sleep(1.0)
    before, highest, over = resident(pid), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            highest[0] = max(highest[0], resident(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    start = time.perf_counter()
    status, said = sent(port, path, body)
    end = time.perf_counter()
    time.sleep(REST_S)
    over.set()
    watching.join()
    return {
        "nbytes": len(body),
        "status": status,
        "said": said,
        "answered_s": round(end - start, 3),
        **beside.between(start, time.perf_counter()),
        "memory_before": before,
        "memory_highest": highest[0],
        "memory_after": resident(pid),
    }


def left_behind(port: int, pid: int, path: str, make: Make) -> dict[str, Any]:
    """What a body leaves in memory where nothing else runs, when it comes for the second time."""
    body = make()
    status, _ = sent(port, path, body)
    time.sleep(REST_S)
    before = resident(pid)
    sent(port, path, body)
    time.sleep(REST_S)
    after = resident(pid)
    return {"status": status, "memory_before": before, "memory_after": after,
            "after_of_before": round(after / before, 3)}  # fmt: skip


@contextmanager
def served(model: Path, context_length: int) -> Iterator[tuple[int, int]]:
    """A server of this model: its port and its pid."""
    with tempfile.TemporaryDirectory() as home:
        env = os.environ | {"EVERWARM_HOME": home}
        flags = ["--port", "0", "--no-disk", "--no-remember", "--no-record", "--no-cache"]
        flags += ["--context-length", str(context_length)]
        command = [sys.executable, "-m", "everwarm", "serve", str(model), *flags]
        server = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline().split(":")[-1].split("/")[0]), server.pid
        finally:
            server.terminate()
            server.wait(60)


def beside_streams(port: int, pid: int, chosen: dict[str, tuple[str, Make]]) -> dict[str, Any]:
    """Each body once, while replies are streamed."""
    results: dict[str, Any] = {}
    with Beside(port) as beside:
        start = time.perf_counter()
        time.sleep(5)
        results["nothing"] = beside.between(start, time.perf_counter())
        for name, (path, make) in chosen.items():
            results[name] = tried(port, pid, beside, path, make)
            print(name, json.dumps(results[name]), flush=True)
    return results


def alone(port: int, pid: int, chosen: dict[str, tuple[str, Make]]) -> dict[str, Any]:
    """Each body twice, with nothing beside it."""
    results: dict[str, Any] = {}
    for name, (path, make) in chosen.items():
        results[name] = left_behind(port, pid, path, make)
        print(name, json.dumps(results[name]), flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", default="", help="only bodies whose name holds this")
    parser.add_argument("--without", default="\0", help="no bodies whose name holds this")
    parser.add_argument("--alone", action="store_true", help="what bodies leave in memory")
    parser.add_argument("--context-length", type=int, default=8192)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hostile_bodies.json"))
    args = parser.parse_args()
    chosen = {n: b for n, b in bodies().items() if args.only in n and args.without not in n}
    with served(args.model, args.context_length) as (port, pid):
        results = (alone if args.alone else beside_streams)(port, pid, chosen)
    worst = {
        k: max(r[k] for n, r in results.items() if k in r and n != "nothing")
        for k in ("gap_s", "health_s", "after_of_before")
        if any(k in r for r in results.values())
    }
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "model": args.model.name,
        "worst": worst,
        "bodies": results,
    }
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(worst))
    return 0


if __name__ == "__main__":
    sys.exit(main())
