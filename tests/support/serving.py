"""A real server over a tiny model whose tokenizer knows reasoning and tool calls.

Replies are dictated (`everwarm.reply`), so that all else is real: the template, the cache, the
parser, the wire.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo
from forked import Forked
from transformers import AutoTokenizer

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for tool_call in m.tool_calls or [] %}{% set tool_call = tool_call.function %}<tool_call>"
    '{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]


@dataclass
class Server:
    """Where a server listens."""

    port: int

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (parsed where it is JSON) and headers of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, raw, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        seen = {k.lower(): v for k, v in answer.getheaders()}
        return answer.status, json.loads(text) if text.strip().startswith(b"{") else text, seen

    def turn(self) -> dict[str, Any]:
        """The record of the latest turn."""
        turns: list[dict[str, Any]] = self.call("GET", "/api/turns?limit=1")[1]["turns"]
        return turns[0]


def save_talker(
    path: Path, smollm2: Path, *, family: str = "llama", template: str = TEMPLATE
) -> Path:
    """A tiny model with the tokenizer that can think and call."""
    tokenizer_dir = path / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.add_tokens(MARKERS, special_tokens=True)
    tokenizer.save_pretrained(tokenizer_dir)
    config = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (tokenizer_dir / "tokenizer_config.json").write_text(json.dumps(config))
    return zoo.save(family, path / "talker", tokenizer_dir, vocab_size=49152 + 64)


@contextmanager
def serving(model: Path, *flags: str) -> Iterator[Server]:
    """A server process for as long as the block runs; it must end cleanly."""
    command = [
        sys.executable,
        "-m",
        "everwarm",
        "serve",
        str(model),
        "--port",
        "0",
        "--no-remember",
    ]
    process = Forked([*command, *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline().split(":")[-1].split("/")[0])
    try:
        yield Server(port)
    finally:
        process.terminate()
        code = process.wait(30)
        process.stdout.close()
    assert code == 0


def sse(raw: bytes) -> list[tuple[str, Any]]:
    """The (event name, data) of a stream; data that is no JSON stays text."""
    out = []
    for frame in raw.decode().split("\n\n"):
        if not frame.strip():
            continue
        fields = dict(line.split(": ", 1) for line in frame.splitlines())
        data = fields["data"]
        out.append((fields.get("event", ""), json.loads(data) if data != "[DONE]" else data))
    return out
