"""The demo: the same messages twice, and a fair table."""

from __future__ import annotations

import json

import httpx2

from everwarm.cli.demo import MAX_TOKENS, QUESTIONS, compare, hold, verdict
from everwarm.client import ChatClient, ChatReply


def reply(text: str, cached: int, ttft_s: float) -> ChatReply:
    return ChatReply(
        text=text,
        finish="length",
        prompt_tokens=100,
        cached_tokens=cached,
        completion_tokens=16,
        ttft_s=ttft_s,
        total_s=ttft_s + 1,
    )


def test_the_second_run_is_sent_the_first_runs_replies() -> None:
    sent: list[dict[str, object]] = []

    def serve(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json={"data": [{"id": "m"}]})
        sent.append(json.loads(request.content))
        chunk = {"choices": [{"delta": {"content": f"reply {len(sent)}"}}]}
        return httpx2.Response(200, content=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")

    with ChatClient("http://test", transport=httpx2.MockTransport(serve)) as client:
        first = [r.text for r in hold(client)]
        second = [r.text for r in hold(client, first)]
    turns = len(QUESTIONS)
    assert turns == 10
    assert first != second
    assert [b["messages"] for b in sent[:turns]] == [b["messages"] for b in sent[turns:]]
    assert all(b["max_tokens"] == MAX_TOKENS and b["temperature"] == 0 for b in sent)


def test_a_turn_compares_both_runs() -> None:
    turn = compare(2, reply("a", cached=70, ttft_s=0.5), reply("b", cached=0, ttft_s=2.0))
    assert (turn.cached_tokens, turn.prefilled_tokens, turn.ratio) == (70, 30, 4.0)
    assert verdict([turn]) == "Greedy replies differ between warm and cold in turns 2."
