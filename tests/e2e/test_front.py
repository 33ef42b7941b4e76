"""The front stays up: while a model loads, where MLX is missing, when the engine is killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import pytest
import zoo
from engines import HIDES_MLX, TELLS_IMPORTS, customized, engines_of, is_gone
from serving import Server, sse

PAGE = {"Accept": "text/html"}
SAYS = [{"role": "user", "content": "Count the lakes. " * 40}]
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAYS, "max_tokens": 1500},
    "/v1/completions": {"prompt": "Count the lakes. " * 40, "max_tokens": 1500},
    "/v1/responses": {"input": SAYS, "max_output_tokens": 1500},
    "/v1/messages": {"messages": SAYS, "max_tokens": 1500},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    return zoo.save("llama", tmp_path_factory.mktemp("models") / "tiny", smollm2)


@dataclass
class Front(Server):
    """A server from its first moment on. `ready` waits until its model is loaded."""

    process: subprocess.Popen[str]
    drain: subprocess.Popen[bytes]
    stderr: IO[str]

    def ready(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def said(self) -> str:
        """What it wrote to stderr after its first line. Waits until it and its engine are gone."""
        self.drain.wait(30)
        self.stderr.seek(0)
        return self.stderr.read()

    @property
    def engine(self) -> int:
        (pid,) = engines_of(self.process.pid)
        return pid


@contextmanager
def front(model: Path, *flags: str, env: dict[str, str] | None = None) -> Iterator[Front]:
    """A server as soon as it listens; it is killed with the block where it still runs."""
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0", *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stderr is not None and process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:([0-9]+)", process.stderr.readline())
    assert found
    with TemporaryFile("w+") as said:
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=said)
        process.stderr.close()
        try:
            yield Front(int(found[1]), process, drain, said)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            drain.wait(30)


def ended(server: Front, number: int) -> int:
    """The exit code after a signal."""
    server.process.send_signal(number)
    return server.process.wait(30)


def test_it_answers_before_its_model_is_loaded(model: Path) -> None:
    with front(model) as server:
        status, body, _ = server.call("GET", "/health")
        assert (status, body["status"]) == (200, "starting") and body["why"]
        status, body, _ = server.call("GET", "/ready")
        assert (status, body["status"]) == (503, "starting")
        for path in ("/", "/dashboard"):
            status, body, _ = server.call("GET", path, **PAGE)
            assert status == 200 and b"everwarm is starting" in body
        assert server.call("GET", "/web/js/starting.js")[0] == 200
        assert server.call("GET", "/")[1] == {"name": "everwarm", "status": "ok"}
        for path, shape in (("/v1/chat/completions", "code"), ("/v1/messages", "type")):
            status, body, headers = server.call("POST", path, ASKS[path], Prefer="wait=0")
            assert status == 503 and int(headers["retry-after"]) > 0
            assert body["error"][shape] in ("overloaded", "overloaded_error")
        # This one was sent before there was a model, and waits.
        status, body, _ = server.call(
            "POST", "/v1/chat/completions", {"messages": SAYS, "max_tokens": 2}
        )
        assert status == 200 and body["usage"]["completion_tokens"] == 2
        assert server.ready().startswith("everwarm serves tiny at http://127.0.0.1:")
        assert server.call("GET", "/ready")[0] == 200
        assert b"everwarm is starting" not in server.call("GET", "/", **PAGE)[1]
        assert ended(server, signal.SIGTERM) == 0


def test_it_asks_for_the_key_from_the_first_moment_on(model: Path) -> None:
    with front(model, "--api-key", "secret") as server:
        assert server.call("GET", "/health")[0] == 200
        status, body, _ = server.call("POST", "/v1/messages", ASKS["/v1/messages"], Prefer="wait=0")
        assert status == 401 and body["error"]["type"] == "authentication_error"
        assert server.call("GET", "/health", Host="evil.example")[0] == 403


def test_only_the_engine_imports_mlx(model: Path, tmp_path: Path) -> None:
    env = customized(tmp_path, TELLS_IMPORTS.format(folder=str(tmp_path)))
    with front(model, env=env) as server:
        server.ready()
        for path, body in ASKS.items():
            limit = next(k for k in body if "max" in k)
            assert server.call("POST", path, body | {limit: 2})[0] == 200
        for path in ("/", "/dashboard", "/api/ps", "/api/dashboard", "/metrics", "/openapi.json"):
            assert server.call("GET", path, **PAGE)[0] == 200
        own, engine = server.process.pid, server.engine
        told = {p.name for p in tmp_path.iterdir() if p.suffix in (".core", ".mlx_lm")}
        assert f"{engine}.mlx.core" in told and f"{engine}.mlx_lm" in told
        assert not [name for name in told if name.startswith(f"{own}.")]


def test_without_mlx_it_serves_the_pages_and_says_what_is_missing(
    model: Path, tmp_path: Path
) -> None:
    with front(model, env=customized(tmp_path, HIDES_MLX)) as server:
        for _ in range(600):
            status, health, _ = server.call("GET", "/health")
            if health["status"] == "failed":
                break
            time.sleep(0.1)
        assert status == 503 and "mlx is not installed" in health["why"]
        assert "pip install" in health["why"]
        for path in ("/", "/dashboard"):
            status, body, _ = server.call("GET", path, **PAGE)
            assert status == 200 and b"<!doctype html>" in body
        for path, body in ASKS.items():
            for stream in (False, True):
                status, answer, headers = server.call("POST", path, body | {"stream": stream})
                assert status == 503 and "retry-after" in headers
                assert answer["error"]["message"] == health["why"]
        assert server.call("GET", "/api/ps")[1]["engine"]["state"] == "missing"
        # What the disk has of a session cannot be deleted, so nothing of it is.
        session = f"/api/sessions/{server.call('POST', '/api/sessions', {})[1]['id']}"
        assert server.call("DELETE", session)[0] == 503
        assert server.call("GET", session)[0] == 200
        assert ended(server, signal.SIGTERM) == 0


def test_a_model_that_cannot_be_used_ends_it_with_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "everwarm", "serve", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("everwarm: ")


@pytest.fixture(scope="module")
def warm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    env = {**os.environ, "EVERWARM_HOME": str(tmp_path_factory.mktemp("home"))}
    flags = ("--disk", "--remember", "--record")
    with front(model, *flags, env=env) as server:
        server.ready()
        yield server
        assert ended(server, signal.SIGTERM) == 0


@pytest.mark.parametrize("path", ASKS)
def test_a_killed_engine_ends_the_stream_in_its_format_and_the_next_turn_is_warm(
    warm: Front, path: str
) -> None:
    limit = next(k for k in ASKS[path] if "max" in k)
    first = warm.call("POST", path, ASKS[path] | {limit: 1})
    assert first[0] == 200
    read = warm.turn()["prompt_tokens"]
    time.sleep(2.0)  # it is on disk once the engine is idle
    restarts = warm.call("GET", "/api/ps")[1]["engine"]["restarts"]

    connection = http.client.HTTPConnection("127.0.0.1", warm.port, timeout=60)
    connection.request("POST", path, json.dumps(ASKS[path] | {"stream": True}))
    answer = connection.getresponse()
    raw = answer.read(3000)
    os.kill(warm.engine, signal.SIGKILL)
    died = time.monotonic()
    assert warm.call("GET", "/health")[0] == 200
    raw += answer.read()
    took_s = time.monotonic() - died
    connection.close()

    events = sse(raw)
    if path.startswith("/v1/messages"):
        name, last = events[-1]
        assert name == "error" and last["type"] == "error"
        said = last["error"]["message"]
    elif path == "/v1/responses":
        name, last = events[-1]
        assert name == "response.failed" and last["response"]["status"] == "failed"
        said = last["response"]["error"]["message"]
    else:
        (_, last), (_, end) = events[-2:]
        assert end == "[DONE]" and last["error"]["code"] == "engine_died"
        said = last["error"]["message"]
    assert "SIGKILL" in said and "send the request once more" in said
    assert took_s < 5.0
    record = warm.turn()
    assert record["finish"] == "engine_died" and record["error"] == said

    status, _, _ = warm.call("POST", path, ASKS[path] | {limit: 1})
    assert status == 200
    record = warm.turn()
    assert record["cached_from"] == "disk" and record["prefilled_tokens"] <= 1 + read % 256
    engine = warm.call("GET", "/api/ps")[1]["engine"]
    assert engine["restarts"] == restarts + 1 and engine["state"] == "ready"
    metrics = warm.call("GET", "/metrics")[1].decode()
    assert f"everwarm_engine_restarts {restarts + 1}.0" in metrics
    assert "everwarm_engine_up 1.0" in metrics
    assert warm.call("GET", "/api/dashboard")[1]["engine"]["restarts"] == restarts + 1


def test_who_does_not_want_to_wait_for_a_restart_is_told_to_come_back(warm: Front) -> None:
    os.kill(warm.engine, signal.SIGKILL)
    while (health := warm.call("GET", "/health"))[1]["status"] == "ok":
        time.sleep(0.01)
    assert health[0] == 200 and health[1]["status"] == "restarting"
    assert warm.call("GET", "/ready")[0] == 503
    for path in ("/api/ps", "/api/dashboard", "/metrics", "/api/cache/tree"):
        assert warm.call("GET", path)[0] == 200
    short = {"messages": SAYS, "max_tokens": 1}
    status, _, headers = warm.call("POST", "/v1/messages", short, Prefer="wait=0")
    assert status == 503 and int(headers["retry-after"]) > 0
    assert warm.call("POST", "/v1/messages", short, Prefer="respond-async, wait=60")[0] == 200


def busy(server: Front) -> http.client.HTTPConnection:
    """A stream that is under way."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    body = ASKS["/v1/chat/completions"] | {"stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    connection.getresponse().read(500)
    return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("when", ["idle", "busy", "loading", "listening"])
def test_a_signal_ends_all_of_it_cleanly(model: Path, number: int, when: str) -> None:
    with front(model) as server:
        while when != "listening" and not engines_of(server.process.pid):
            time.sleep(0.01)
        connection = None
        if when in ("idle", "busy"):
            server.ready()
        engines = engines_of(server.process.pid)
        if when == "busy":
            connection = busy(server)
        assert ended(server, number) == 0
        assert len(engines) == (when != "listening") and all(map(is_gone, engines))
        if connection:
            connection.close()


def test_a_second_interrupt_waits_for_nothing(model: Path) -> None:
    with front(model) as server:
        server.ready()
        connection, engine = busy(server), server.engine
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)  # the stream goes on for a moment, and may end
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 1 and is_gone(engine)
        # Neither was the engine told to stop, nor the stream given up after its grace.
        assert server.said().splitlines()[-1].startswith("Ended at once")
        assert "graceful" not in server.said()
        connection.close()


def test_no_engine_outlives_a_front_that_was_killed(model: Path) -> None:
    with front(model) as server:
        server.ready()
        connection, engine = busy(server), server.engine
        server.process.kill()
        assert is_gone(engine)
        connection.close()
