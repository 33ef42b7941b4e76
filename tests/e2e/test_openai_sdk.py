"""The official SDK in front of the real model in a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from openai import BadRequestError, NotFoundError, OpenAI
from tokenizers import Tokenizer

FRAME = 11
"""Tokens of SmolLM2's ChatML frame around one new user message: the closer behind our reply
(`<|im_end|>`, newline), `<|im_start|>` `user` newline, `<|im_end|>` newline, and the scaffold
(`<|im_start|>`, `assistant` as two tokens, newline)."""


@dataclass
class Server:
    process: Forked
    url: str

    def __post_init__(self) -> None:
        self.client = OpenAI(base_url=self.url, api_key="none", max_retries=0)

    def turns(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/api/turns") as r:
            return list(json.load(r)["turns"])


def start(model: Path, *flags: str, env: dict[str, str] | None = None) -> Server:
    if "--remember" not in flags:
        flags = (*flags, "--no-remember", "--no-disk")
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0", *flags]
    process = Forked(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    assert process.stdout is not None
    line = process.stdout.readline()
    return Server(process, line.split()[-1])


def end(server: Server, sig: signal.Signals = signal.SIGTERM) -> int:
    server.process.send_signal(sig)
    server.client.close()
    code = server.process.wait(30)
    assert server.process.stdout is not None
    server.process.stdout.close()
    return code


@pytest.fixture(scope="module")
def warm(smollm2: Path) -> Iterator[Server]:
    server = start(smollm2)
    yield server
    assert end(server) == 0


@pytest.fixture(scope="module")
def cold(smollm2: Path) -> Iterator[Server]:
    server = start(smollm2, "--no-cache")
    yield server
    assert end(server) == 0


def ask(server: Server, messages: list[Any], *, stream: bool) -> tuple[str, Any]:
    args: dict[str, Any] = {
        "model": "default",
        "messages": messages,
        "temperature": 0,
        "max_tokens": 8,
    }
    if not stream:
        reply = server.client.chat.completions.create(**args)
        return reply.choices[0].message.content or "", reply.usage
    text, usage = "", None
    for chunk in server.client.chat.completions.create(
        **args, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(c.delta.content or "" for c in chunk.choices)
        usage = chunk.usage or usage
    return text, usage


def test_ten_turns_read_only_new_tokens(warm: Server, cold: Server, smollm2: Path) -> None:
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    messages: list[Any] = [{"role": "system", "content": "You are a short, friendly helper."}]
    for n in range(10):
        messages.append({"role": "user", "content": f"Tell me one thing about number {n}."})
        text, usage = ask(warm, messages, stream=n % 2 == 0)
        same, plain = ask(cold, messages, stream=n % 2 == 1)
        assert text == same
        assert plain.prompt_tokens == usage.prompt_tokens
        assert plain.prompt_tokens_details.cached_tokens == 0
        if n:
            new = len(tokenizer.encode(messages[-1]["content"]).ids)
            prefilled = usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens
            assert prefilled == new + FRAME
            assert warm.turns()[0]["new_tokens"] == prefilled
        messages.append({"role": "assistant", "content": text})


def test_regenerate_reads_one_token(warm: Server) -> None:
    messages = [{"role": "user", "content": "Name a colour."}]
    first, _ = ask(warm, messages, stream=False)
    again, usage = ask(warm, messages, stream=True)
    assert again == first
    assert usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens == 1


def test_two_interleaved_conversations_stay_warm(warm: Server) -> None:
    system = {"role": "system", "content": "Answer in one word. " * 6}
    talks: list[list[Any]] = [
        [system, {"role": "user", "content": f"Conversation {k}: name a fruit."}] for k in "AB"
    ]
    for n in range(3):
        for talk in talks:
            text, _ = ask(warm, talk, stream=False)
            record = warm.turns()[0]
            assert record["prefilled_tokens"] in (record["unseen_tokens"], 1)
            talk += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": f"Another, number {n}."},
            ]


def test_refusals_name_the_parameter(warm: Server) -> None:
    with pytest.raises(NotFoundError) as unknown:
        warm.client.chat.completions.create(
            model="nobody", messages=[{"role": "user", "content": "x"}]
        )
    assert unknown.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as long:
        warm.client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "word " * 9000}]
        )
    assert long.value.code == "context_length_exceeded"
    assert ask(warm, [{"role": "user", "content": "Still there?"}], stream=False)[0]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_ends_cleanly_while_generating(smollm2: Path, sig: signal.Signals) -> None:
    server = start(smollm2)
    stream = server.client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "Count to 500."}], stream=True
    )
    next(iter(stream))
    code = end(server, sig)
    stream.close()
    assert code == 0


def test_a_restarted_server_knows_its_replies_word_for_word(smollm2: Path, tmp_path: Path) -> None:
    env = {"EVERWARM_HOME": str(tmp_path)}
    messages: list[Any] = [{"role": "user", "content": "Name three rivers."}]
    server = start(smollm2, "--remember", env=env)
    first = server.client.chat.completions.create(
        model="default", messages=messages, temperature=1.5, seed=3, max_tokens=24
    )
    assert end(server) == 0
    said = first.choices[0].message.content
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "And lakes?"}]
    server = start(smollm2, "--remember", env=env)
    server.client.chat.completions.create(model="default", messages=messages, max_tokens=2)
    (turn,) = server.turns()
    assert end(server) == 0
    first_usage = first.usage
    assert first_usage is not None
    before = first_usage.prompt_tokens + first_usage.completion_tokens
    # All is read again, since no state outlives a server; yet the tokens are the same ones.
    assert turn["prompt_tokens"] == before + turn["new_tokens"]
    assert turn["miss"]["part"] == "whole prompt"
    assert "since the server" in turn["miss"]["cause"]


def test_every_turn_that_reads_more_than_is_new_says_why(warm: Server) -> None:
    head = {"role": "system", "content": "Be brief. Today is Monday."}
    messages: list[Any] = [head, {"role": "user", "content": "Which green is darkest?"}]
    ask = warm.client.chat.completions.create
    said = ask(model="default", messages=messages, max_tokens=4).choices[0].message.content
    assert warm.turns()[0]["miss"] is None
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Another."}]
    ask(model="default", messages=messages, max_tokens=4)
    assert warm.turns()[0]["miss"] is None
    messages[0] = {"role": "system", "content": "Be brief. Today is Tuesday."}
    ask(model="default", messages=messages, max_tokens=4)
    turn = warm.turns()[0]
    miss = turn["miss"]
    assert miss["part"] == "system"
    assert miss["cause"] == "a date or time changed in the system prompt"
    assert "Monday" in miss["before"] and "Tuesday" in miss["after"]
    # Under another system prompt it is another conversation: all is new, and nothing was lost.
    assert turn["new_tokens"] == turn["prompt_tokens"]
    assert miss["by_text"] + miss["by_cache"] == turn["again"] == 0
    shown = subprocess.run(
        [sys.executable, "-m", "everwarm", "why", "--url", warm.url.removesuffix("/v1")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "a date or time changed in the system prompt" in shown
    assert "- " in shown and "Tuesday" in shown


def test_compaction_without_tools_keeps_the_conversations_tools(warm: Server) -> None:
    tools: Any = [{"type": "function", "function": {"name": "look", "description": "Looks."}}]
    messages: list[Any] = [{"role": "user", "content": "Describe the sea."}]
    ask = warm.client.chat.completions.create
    said = ask(model="default", messages=messages, tools=tools, max_tokens=4)
    messages += [
        {"role": "assistant", "content": said.choices[0].message.content},
        {"role": "user", "content": "Summarise this conversation."},
    ]
    ask(model="default", messages=messages, max_tokens=4)
    turn = warm.turns()[0]
    assert turn["tools_from"] == "conversation"
    assert turn["prefilled_tokens"] == turn["new_tokens"]
