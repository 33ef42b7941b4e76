"""Dictated replies: the model runs over them, and all else is real."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from forked import Forked

REPLY = "The lake is deep,\n\nand its water is 4°C cold."


@pytest.fixture(scope="module", params=["llama", "qwen3_5"])
def url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[str]:
    path = tmp_path_factory.mktemp("models") / "tiny"
    zoo.save(request.param, path, smollm2)
    command = [sys.executable, "-m", "everwarm", "serve", str(path), "--port", "0"]
    process = Forked(
        [*command, "--forced-replies", "--no-remember", "--no-disk"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()


def ask(url: str, messages: list[dict[str, str]], reply: str, **fields: Any) -> dict[str, Any]:
    body = {"messages": messages, "everwarm": {"reply": reply}, **fields}
    request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        out: dict[str, Any] = json.loads(answer.read())
    return out


def test_the_reply_is_what_was_dictated_and_the_next_turn_is_warm(url: str) -> None:
    history = [{"role": "user", "content": "Tell me of a lake."}]
    first = ask(url, history, REPLY)
    choice = first["choices"][0]
    assert choice["message"]["content"] == REPLY and choice["finish_reason"] == "stop"
    history += [choice["message"], {"role": "user", "content": "And of a river?"}]
    second = ask(url, history, "It flows.")
    usage = second["usage"]
    read_before = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == read_before


def test_a_dictated_reply_ends_at_max_tokens(url: str) -> None:
    out = ask(url, [{"role": "user", "content": "Hello"}], REPLY, max_tokens=3)
    assert out["choices"][0]["finish_reason"] == "length"
    assert out["usage"]["completion_tokens"] == 3
    assert REPLY.startswith(out["choices"][0]["message"]["content"])
