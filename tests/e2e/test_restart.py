"""A server that was killed comes back warm: a reply is durable a second after it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zoo

KEEPS = {"EVERWARM_DISK": "true", "EVERWARM_REMEMBER": "true"}


@contextmanager
def server(model: Path, home: Path, end: int = signal.SIGKILL) -> Iterator[str]:
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | KEEPS | {"EVERWARM_HOME": str(home)},
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.send_signal(end)
        process.wait(30)
        process.stdout.close()


def get(url: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.removesuffix("/v1") + path, timeout=60) as answer:
        out: dict[str, Any] = json.loads(answer.read())
    return out


def ask(url: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    body = json.dumps({"messages": messages, "temperature": 0, "max_tokens": 5}).encode()
    with urllib.request.urlopen(
        urllib.request.Request(url + "/chat/completions", body), timeout=60
    ) as answer:
        out: dict[str, Any] = json.loads(answer.read())
    return out


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_killed_a_second_after_a_reply_and_warm_again(
    family: str, tmp_path: Path, smollm2: Path
) -> None:
    model, home = tmp_path / "model", tmp_path / "home"
    zoo.save(family, model, smollm2)
    history: list[dict[str, Any]] = [
        {"role": "user", "content": "Tell me of the lake. " + "word " * 300}
    ]
    with server(model, home) as url:
        first = ask(url, history)
        history += [first["choices"][0]["message"], {"role": "user", "content": "And then?"}]
        time.sleep(1.0)
    with server(model, home) as url:
        second = ask(url, history)
        turn = get(url, "/api/turns?limit=1")["turns"][0]
        assert get(url, "/ready")["disk_state"] == "ok"
    assert turn["cached_from"] == "disk"
    assert turn["prefilled_tokens"] < 30 < 300 < turn["cached_tokens"]
    pieces = list((home / "cache" / "pieces").glob("*.kv"))
    assert pieces and all(p.stat().st_mode & 0o777 == 0o600 for p in pieces)
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == turn["cached_tokens"]


def test_two_servers_do_not_share_a_directory(tmp_path: Path, smollm2: Path) -> None:
    model, home = tmp_path / "model", tmp_path / "home"
    zoo.save("llama", model, smollm2)
    with server(model, home):
        command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0"]
        other = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | KEEPS | {"EVERWARM_HOME": str(home)},
            timeout=60,
        )
    assert other.returncode == 2
    assert "pid" in other.stderr.lower() or "process" in other.stderr.lower()
    assert "Traceback" not in other.stderr


def test_a_directory_that_cannot_be_used_is_said_and_served_without(
    tmp_path: Path, smollm2: Path
) -> None:
    model, home = tmp_path / "model", tmp_path / "home"
    zoo.save("llama", model, smollm2)
    home.mkdir()
    (home / "cache").write_text("in the way")
    with server(model, home, end=signal.SIGTERM) as url:
        assert ask(url, [{"role": "user", "content": "Hello"}])["choices"]
        assert get(url, "/ready")["disk_state"] != "ok"
