"""A real server that holds sessions, and a client that speaks its session API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from forked import Forked
from serving import sse

Events = list[tuple[str, Any]]


@dataclass
class Client:
    """Where a server listens, and its process. Bodies and answers are JSON."""

    url: str
    pid: int = 0

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Status and answer."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, raw, method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except HTTPError as e:
            status, text = e.code, e.read()
            e.close()
        return status, json.loads(text) if text[:1] == b"{" else text

    def get(self, path: str) -> Any:
        status, answer = self.ask("GET", path)
        assert status == 200, answer
        return answer

    def post(self, path: str, body: object | None = None) -> Any:
        status, answer = self.ask("POST", path, {} if body is None else body)
        assert status == 200, answer
        return answer

    def new(self, **settings: Any) -> str:
        """A session whose replies are short and the likeliest."""
        made = self.post(
            "/api/sessions", {"settings": {"temperature": 0.0, "max_tokens": 6} | settings}
        )
        return str(made["id"])

    def stream(self, path: str, body: object | None = None) -> Events:
        """All events of a turn."""
        return sse(self.post(path, body))

    def say(self, session: str, text: str, **more: Any) -> dict[str, Any]:
        """One turn; its last event's data."""
        return done(self.stream(f"/api/sessions/{session}/send", {"text": text, **more}))


def done(events: Events) -> dict[str, Any]:
    """What the last event of a turn that went well says."""
    name, data = events[-1]
    assert name == "done", events
    return dict(data)


def settle(client: Client) -> None:
    """Until nothing more is written to disk."""
    seen: list[int] = []
    while len(seen) < 3 or seen[-1] != seen[-3]:
        seen.append(client.get("/api/ps")["engine"]["disk_pieces"])
        time.sleep(0.1)


@contextmanager
def holding(model: Path, home: Path, *flags: str) -> Iterator[Client]:
    """A server whose home is this one, with everything on; it must end cleanly."""
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0", *flags]
    on = {"EVERWARM_DISK": "true", "EVERWARM_REMEMBER": "true", "EVERWARM_RECORD": "true"}
    process = Forked(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | on | {"EVERWARM_HOME": str(home)},
    )
    assert process.stdout is not None
    try:
        yield Client(process.stdout.readline().split()[-1].removesuffix("/v1"), process.pid)
    finally:
        process.terminate()
        code = process.wait(30)
        process.stdout.close()
    assert code == 0
