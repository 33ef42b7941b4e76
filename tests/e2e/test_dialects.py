"""Every dialect through the three chat APIs, from a real server: reasoning, text and calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zoo
from dialect_samples import SAMPLES, VALUES, Sample
from serving import Server, serving, sse
from transformers import AutoTokenizer

PARAMETERS = {
    "type": "object",
    "properties": {"at": {"type": "string"}, "b": {"type": "object"}},
}
CHAT_TOOLS = [{"type": "function", "function": {"name": "look", "parameters": PARAMETERS}}]
MESSAGES_TOOLS = [{"name": "look", "input_schema": PARAMETERS}]
RESPONSES_TOOLS = [{"type": "function", "name": "look", "parameters": PARAMETERS}]
NEW = ["harmony", "deepseek_v31", "deepseek_v32", "kimi_k2", "magistral", "cohere", "phi_4",
       "granite_3", "llama_3", "seed_oss"]  # fmt: skip


@pytest.fixture(scope="module", params=NEW)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[tuple[Server, Sample]]:
    sample = SAMPLES[request.param]
    path = tmp_path_factory.mktemp("dialect")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.add_tokens(list(sample.markers), special_tokens=True)
    tokenizer.save_pretrained(path / "tokenizer")
    file = path / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": sample.template}))
    model = zoo.save("llama", path / "model", path / "tokenizer", vocab_size=49152 + 64)
    with serving(model, "--forced-replies") as server:
        yield server, sample


def dictated(sample: Sample) -> str:
    """The reply as it follows the scaffold, which may have opened the reasoning."""
    return sample.reply.removeprefix("<think>") if sample.opened else sample.reply


def call(calls: list[tuple[str, Any]], sample: Sample) -> None:
    assert calls == [("look", VALUES)] * sample.n_calls


def test_chat_completions(served: tuple[Server, Sample]) -> None:
    server, sample = served
    body = {
        "messages": [{"role": "user", "content": "Look."}],
        "tools": CHAT_TOOLS,
        "everwarm": {"reply": dictated(sample)},
    }
    status, answer, _ = server.call("POST", "/v1/chat/completions", body)
    assert status == 200, answer
    choice = answer["choices"][0]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert (message["content"] or "") == ("I look." if sample.says else "")
    assert (message.get("reasoning_content") or "").strip() == ("hm" if sample.thinks else "")
    functions = [c["function"] for c in message["tool_calls"]]
    call([(f["name"], json.loads(f["arguments"])) for f in functions], sample)
    raw = server.call("POST", "/v1/chat/completions", body | {"stream": True})[1]
    deltas = [d for _, e in sse(raw) if e != "[DONE]" and e["choices"]
              for d in e["choices"][0]["delta"].get("tool_calls", ())]  # fmt: skip
    told = {d["index"]: "" for d in deltas}
    for d in deltas:
        told[d["index"]] += d["function"].get("arguments") or ""
    assert [json.loads(a) for a in told.values()] == [VALUES] * sample.n_calls
    assert list(told) == list(range(sample.n_calls))
    assert len({d["id"] for d in deltas if d.get("id")}) == sample.n_calls


def test_messages(served: tuple[Server, Sample]) -> None:
    server, sample = served
    body = {
        "model": "default",
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": "Look."}],
        "tools": MESSAGES_TOOLS,
        "everwarm": {"reply": dictated(sample)},
    }
    status, answer, _ = server.call("POST", "/v1/messages", body)
    assert status == 200, answer
    assert answer["stop_reason"] == "tool_use"
    kinds = [b["type"] for b in answer["content"] if b["type"] != "thinking"]
    assert kinds == ["text"] * sample.says + ["tool_use"] * sample.n_calls
    used = [b for b in answer["content"] if b["type"] == "tool_use"]
    call([(b["name"], b["input"]) for b in used], sample)


def test_responses(served: tuple[Server, Sample]) -> None:
    server, sample = served
    body = {
        "input": "Look.",
        "tools": RESPONSES_TOOLS,
        "everwarm": {"reply": dictated(sample)},
    }
    status, answer, _ = server.call("POST", "/v1/responses", body)
    assert status == 200, answer
    kinds = [i["type"] for i in answer["output"]]
    assert (
        kinds
        == ["reasoning"] * sample.thinks
        + ["message"] * sample.says
        + ["function_call"] * sample.n_calls
    )
    used = [i for i in answer["output"] if i["type"] == "function_call"]
    call([(i["name"], json.loads(i["arguments"])) for i in used], sample)


def test_the_next_turn_is_warm(served: tuple[Server, Sample]) -> None:
    server, sample = served
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Look around."}]
    body = {"tools": CHAT_TOOLS, "everwarm": {"reply": dictated(sample)}}
    first = server.call("POST", "/v1/chat/completions", {"messages": messages, **body})[1]
    message = first["choices"][0]["message"]
    messages += [message, *({"role": "tool", "tool_call_id": c["id"], "content": "seen"}
                            for c in message["tool_calls"])]  # fmt: skip
    second = server.call("POST", "/v1/chat/completions", {"messages": messages, **body})[1]
    read = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == read
