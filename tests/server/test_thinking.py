"""A thinking budget, with a real model that would think for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import TEMPLATE, Server, save_talker, serving

CLOSE = "\n</think>\n\n"
THINKS = TEMPLATE.replace(
    "{{ m.role }}\n{{ m.content }}",
    "{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}"
    + CLOSE
    + "{% endif %}{{ m.content }}",
).replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
ASK = [{"role": "user", "content": "How deep is the lake?"}]
SAMPLED = {"seed": 5, "temperature": 1.0}


@pytest.fixture(scope="module", params=["llama", "qwen3_next"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("models")
    model = save_talker(path, smollm2, family=request.param, template=THINKS)
    with serving(model, "--thinking-budget", "20") as running:
        yield running


def post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    status, answer, _ = server.call("POST", path, body)
    assert status == 200, answer
    out: dict[str, Any] = answer
    return out


def chat(server: Server, **body: Any) -> dict[str, Any]:
    return post(
        server, "/v1/chat/completions", **{"messages": ASK, "max_tokens": 40, **SAMPLED, **body}
    )


def test_reasoning_is_closed_when_its_budget_is_spent(server: Server) -> None:
    free = chat(server, thinking_budget=1000)["choices"][0]["message"]
    assert not free["content"]
    cut = chat(server, thinking_budget=12)
    message, turn = cut["choices"][0]["message"], server.turn()
    assert message["content"]
    assert free["reasoning_content"].startswith(message["reasoning_content"].removesuffix("\n"))
    assert turn["thinking_cut"]
    assert turn["reasoning_tokens"] == 12 + 2  # the marker, and the line's end before it
    details = cut["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == turn["reasoning_tokens"]


def test_without_a_budget_of_its_own_a_request_has_the_servers(server: Server) -> None:
    assert chat(server)["choices"][0]["message"]["content"]
    assert server.turn()["reasoning_tokens"] == 20 + 2
    chat(server, thinking_budget=1000)
    assert not server.turn()["thinking_cut"]


def test_a_budget_of_nothing_answers_at_once(server: Server) -> None:
    message = chat(server, chat_template_kwargs={"thinking_budget": 0})["choices"][0]["message"]
    assert message["content"] and not message.get("reasoning_content", "").strip()


def test_a_reply_that_was_cut_comes_back_word_for_word(server: Server) -> None:
    first = chat(server, thinking_budget=9)
    said = first["choices"][0]["message"]
    history = [*ASK, {"role": "assistant", "content": said["content"]}]  # drops the reasoning
    second = chat(server, messages=[*history, {"role": "user", "content": "And the river?"}])
    before = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= before - 1


def test_anthropics_budget_is_kept(server: Server) -> None:
    thinking = {"type": "enabled", "budget_tokens": 7}
    message = post(server, "/v1/messages", messages=ASK, max_tokens=30, thinking=thinking)
    kinds = [block["type"] for block in message["content"]]
    assert kinds == ["thinking", "text"]
    assert server.turn()["reasoning_tokens"] == 7 + 2


def test_a_response_has_a_budget_too(server: Server) -> None:
    own = {"thinking_budget": 5}
    answer = post(server, "/v1/responses", input="Hello", max_output_tokens=20, everwarm=own)
    assert [item["type"] for item in answer["output"]] == ["reasoning", "message"]
    assert server.turn()["reasoning_tokens"] == 5 + 2


def test_a_text_that_is_continued_has_no_reasoning(server: Server) -> None:
    answer = post(server, "/v1/completions", prompt="<think>", max_tokens=30, temperature=0)
    assert answer["usage"]["completion_tokens"] == 30
    assert not server.turn()["thinking_cut"]


def test_reasoning_that_the_model_opens_again_is_closed_at_once(server: Server) -> None:
    opens = 49152 + 0  # <think> is the first token behind SmolLM2's own
    biased = {"logit_bias": {str(opens): 100}, "temperature": 0, "max_tokens": 24}
    chat(server, thinking_budget=6, **biased)
    # 6 tokens and the marker; then, each time, the line's end and the marker alone.
    turn = server.turn()
    assert turn["completion_tokens"] == 24 and turn["thinking_cut"]
    assert turn["reasoning_tokens"] == 6 + 2 + (24 - 6 - 3) // 4 * 2 + min((24 - 9) % 4 - 1, 2)
