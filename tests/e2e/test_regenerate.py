"""Asking again reads next to nothing, on a real model with layers that cannot be cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_templates import NO_SCAFFOLD_MOVES_SYSTEM
from serving import Server, save_talker, serving

MOST = 8
LONG = " ".join(f"{n}, and" for n in range(200))
ASKED = [{"role": "user", "content": LONG}]
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": ASKED, "max_tokens": 5},
    "/v1/messages": {"messages": ASKED, "max_tokens": 5, "model": "default"},
    "/v1/responses": {"input": LONG, "max_output_tokens": 16},
    "/v1/completions": {"prompt": LONG, "max_tokens": 5},
}


@pytest.fixture(scope="module", params=["qwen3_next", "mamba2", "gemma3_text"])
def server(
    request: pytest.FixtureRequest, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A hybrid, a recurrent and a windowed model, with a template that opens no reply."""
    path = tmp_path_factory.mktemp("regenerate")
    made = save_talker(path, smollm2, family=request.param, template=NO_SCAFFOLD_MOVES_SYSTEM)
    with serving(made) as running:
        yield running


@pytest.mark.parametrize("path", ASKS)
def test_the_same_request_again_reads_at_most_a_few_tokens(server: Server, path: str) -> None:
    body = ASKS[path] | {"temperature": 1.0}
    for again in range(3):
        assert server.call("POST", path, body)[0] == 200
        turn = server.turn()
        assert turn["prompt_tokens"] > 400
        assert turn["prefilled_tokens"] <= MOST or not again


def test_a_sibling_of_an_earlier_reply_reads_at_most_a_few_tokens(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": f"Hello. {LONG}"}], "max_tokens": 5}
    _, answer, _ = server.call("POST", "/v1/chat/completions", body)
    said = {"role": "assistant", "content": answer["choices"][0]["message"]["content"] or ""}
    more = [*body["messages"], said, {"role": "user", "content": f"More. {LONG}"}]
    assert server.call("POST", "/v1/chat/completions", body | {"messages": more})[0] == 200
    assert server.call("POST", "/v1/chat/completions", body | {"seed": 7})[0] == 200
    assert server.turn()["prefilled_tokens"] <= MOST
