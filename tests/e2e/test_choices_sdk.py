"""The official OpenAI SDK asks for several replies, and for replies to several prompts."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from serving import Server, save_talker, serving

LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Server]:
    yield from started(tmp_path_factory, smollm2, "llama")


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "qwen3_5"])
def any_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2: Path
) -> Iterator[Server]:
    """Of a model whose layers can be cut, of one with windows, and of one with opaque states."""
    yield from started(tmp_path_factory, smollm2, request.param)


def started(
    tmp_path_factory: pytest.TempPathFactory, smollm2: Path, family: str
) -> Iterator[Server]:
    model = save_talker(tmp_path_factory.mktemp("models"), smollm2, family=family)
    with serving(model, "--forced-replies", "--prefill-step", "64") as running:
        yield running


def connected(server: Server) -> OpenAI:
    return OpenAI(base_url=server.root + "/v1", api_key="none", max_retries=0)


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with connected(server) as client:
        yield client


@pytest.fixture
def any_client(any_server: Server) -> Iterator[OpenAI]:
    with connected(any_server) as client:
        yield client


def hi(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class Answer:
    """What came back, streamed or whole: text, end and more by choice, and usage."""

    def __init__(self, given: Any, *, stream: bool) -> None:
        self.texts: dict[int, str] = {}
        self.ends: dict[int, str] = {}
        self.calls: dict[int, list[str]] = {}
        self.logprobs: dict[int, int] = {}
        self.usage: Any = None
        for part in given if stream else [given]:
            self.usage = part.usage or self.usage
            for c in part.choices:
                self._take(c)

    def _take(self, c: Any) -> None:
        said = getattr(c, "delta", None) or getattr(c, "message", None)
        text = c.text if said is None else said.content
        self.texts[c.index] = self.texts.get(c.index, "") + (text or "")
        if c.finish_reason:
            assert c.index not in self.ends
            self.ends[c.index] = c.finish_reason
        for call in (said and said.tool_calls) or []:
            if call.id:
                self.calls.setdefault(c.index, []).append(call.id)
        shown = getattr(c.logprobs, "content", None) or getattr(c.logprobs, "tokens", None) or []
        self.logprobs[c.index] = self.logprobs.get(c.index, 0) + len(shown)


def ask(client: OpenAI, stream: bool, **request: Any) -> Answer:
    create = client.completions.create if "prompt" in request else client.chat.completions.create
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return Answer(create(model="default", **more, **request), stream=stream)  # type: ignore[call-overload]


def records(server: Server, n: int) -> list[dict[str, Any]]:
    """The latest turns' records, by choice."""
    turns = server.call("GET", f"/api/turns?limit={n}")[1]["turns"]
    return sorted(turns, key=lambda t: int(t["id"].partition(".")[2] or "0"))


@STREAMED
@pytest.mark.parametrize("n_words", [3, 300])
def test_samples_share_one_prompt(
    any_client: OpenAI, any_server: Server, stream: bool, n_words: int
) -> None:
    client, server = any_client, any_server
    asked: dict[str, Any] = {"temperature": 1.0, "seed": 7, "max_tokens": 6}
    asked["messages"] = hi(f"{stream} " + "word " * n_words)
    answer = ask(client, stream, n=4, **asked)
    assert sorted(answer.texts) == sorted(answer.ends) == [0, 1, 2, 3]
    assert len(set(answer.texts.values())) > 1
    first, *others = turns = records(server, 4)
    assert {t["finish"] for t in turns} <= {"length", "stop"}
    # The prompt is read once: another sample reads its last token, to draw from, and no more.
    assert first["prefilled_tokens"] == first["prompt_tokens"] - first["cached_tokens"]
    assert first["prefilled_tokens"] > n_words
    assert [t["prefilled_tokens"] for t in others] == [1, 1, 1]
    assert [t["cached_tokens"] for t in others] == [first["prompt_tokens"] - 1] * 3
    assert answer.usage.prompt_tokens == first["prompt_tokens"]
    assert answer.usage.completion_tokens == sum(t["completion_tokens"] for t in turns)
    assert answer.usage.prompt_tokens_details.cached_tokens == first["cached_tokens"]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_seed_gives_the_same_samples_and_the_first_is_the_only_one(client: OpenAI) -> None:
    asked: dict[str, Any] = {"messages": hi("Hm"), "temperature": 1.0, "seed": 3, "max_tokens": 8}
    several = ask(client, True, n=3, **asked)
    assert several.texts == ask(client, False, n=3, **asked).texts
    assert several.texts[0] == ask(client, False, **asked).texts[0]
    assert len(set(several.texts.values())) == 3
    more = ask(client, False, n=5, **asked)
    assert {i: more.texts[i] for i in range(3)} == several.texts


def test_greedy_samples_say_the_same(client: OpenAI) -> None:
    answer = ask(client, False, messages=hi("So"), temperature=0, n=3, max_tokens=5)
    assert len(set(answer.texts.values())) == 1


@STREAMED
def test_each_sample_has_its_own_calls(client: OpenAI, stream: bool) -> None:
    call = 'So.<tool_call>{"name": "look", "arguments": {"at": "lake"}}</tool_call>'
    body = {"everwarm": {"reply": call}}
    answer = ask(client, stream, messages=hi("Look"), tools=[LOOK], n=2, extra_body=body)
    assert answer.ends == {0: "tool_calls", 1: "tool_calls"}
    assert answer.texts == {0: "So.", 1: "So."}
    assert len(set(answer.calls[0] + answer.calls[1])) == 2


def test_the_sdk_s_own_accumulator_reads_several_choices(client: OpenAI) -> None:
    body = {"everwarm": {"reply": "One two three."}}
    with client.chat.completions.stream(
        model="default", messages=hi("Count"), n=3, extra_body=body
    ) as events:
        for _ in events:
            pass
        whole = events.get_final_completion()
    assert [c.index for c in whole.choices] == [0, 1, 2]
    assert {c.message.content for c in whole.choices} == {"One two three."}


def test_a_stop_text_and_logprobs_are_each_sample_s_own(client: OpenAI) -> None:
    body = {"everwarm": {"reply": "One two three."}}
    more: dict[str, Any] = {"n": 2, "logprobs": True, "stop": [" three"], "extra_body": body}
    answer = ask(client, True, messages=hi("Count"), **more)
    assert answer.texts == {0: "One two", 1: "One two"}
    assert answer.ends == {0: "stop", 1: "stop"}
    assert answer.logprobs[0] == answer.logprobs[1] > 0


def test_every_sample_is_held_to_the_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["lake", "sea"]}, "cold": {"type": "boolean"}},
        "required": ["kind", "cold"],
        "additionalProperties": False,
    }
    shape: Any = {"type": "json_schema", "json_schema": {"name": "water", "schema": schema}}
    body = {"everwarm": {"thinking_budget": 0}}
    more: dict[str, Any] = {"n": 3, "max_tokens": 200, "seed": 1, "extra_body": body}
    answer = ask(client, False, messages=hi("Lake or sea?"), response_format=shape, **more)
    for text in answer.texts.values():
        assert json.loads(text)["kind"] in ("lake", "sea")


def test_any_sample_can_be_gone_on_with(any_client: OpenAI, any_server: Server) -> None:
    client, server = any_client, any_server
    asked: dict[str, Any] = {"temperature": 1.0, "seed": 11, "max_tokens": 12}
    question = hi("Tell me of lakes. " * 20)
    answer = ask(client, False, messages=question, n=3, **asked)
    for index in (0, 2, 1):
        said = {"role": "assistant", "content": answer.texts[index]}
        ask(client, False, messages=[*question, said, *hi(f"And {index}?")], **asked)
        record = server.turn()
        assert record["prefilled_tokens"] <= record["new_tokens"] < 30


@STREAMED
def test_replies_to_several_prompts_come_in_their_order(
    client: OpenAI, server: Server, stream: bool
) -> None:
    prompts = ["The lake", "A much longer prompt about lakes and hills", "So"]
    asked: dict[str, Any] = {"temperature": 1.0, "seed": 5, "max_tokens": 4, "logprobs": 1}
    answer = ask(client, stream, prompt=prompts, n=2, **asked)
    assert sorted(answer.texts) == list(range(6))
    alone = [ask(client, False, prompt=p, n=2, **asked) for p in prompts]
    assert [answer.texts[i] for i in range(6)] == [a.texts[i] for a in alone for i in range(2)]
    assert answer.usage.prompt_tokens == sum(a.usage.prompt_tokens for a in alone)
    assert answer.usage.completion_tokens == sum(a.usage.completion_tokens for a in alone)
    assert all(answer.logprobs[i] == 4 for i in range(6) if answer.ends[i] == "length")


def test_prompts_may_be_lists_of_token_ids(client: OpenAI, server: Server) -> None:
    answer = ask(client, False, prompt=[[10, 11, 12], [20, 21]], max_tokens=2, temperature=0)
    assert sorted(answer.texts) == [0, 1]
    assert answer.usage.prompt_tokens == 5
    assert [t["prompt_tokens"] for t in records(server, 2)] == [3, 2]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"messages": hi("x"), "n": 9}, "n", "8"),
        ({"messages": hi("x"), "n": 0}, "n", "1"),
        ({"prompt": "x", "n": 9}, "n", "8"),
        ({"prompt": "x", "n": 2, "best_of": 4}, "best_of", "n"),
        ({"prompt": ["x"] * 129}, "prompt", "128"),
        ({"prompt": ["x", [1]]}, "prompt", "list"),
        ({"prompt": ["x", 1]}, "prompt", "list"),
        ({"prompt": ["x", ""]}, "prompt", "Prompt 2 of 2"),
        ({"prompt": [[1], [99_999_999]]}, "prompt", "Prompt 2 of 2"),
        ({"prompt": ["x", "word " * 200_000]}, "prompt", "Prompt 2 of 2"),
    ],
)
def test_what_cannot_be_is_refused_by_name_before_anything_is_read(
    client: OpenAI, server: Server, fields: dict[str, Any], param: str, said: str
) -> None:
    before = server.call("GET", "/api/turns?limit=1")[1]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(client, stream, max_tokens=2, **fields)
        body: Any = refused.value.body
        assert body["param"] == param and said in body["message"]
    assert server.call("GET", "/api/turns?limit=1")[1] == before


@STREAMED
def test_who_leaves_ends_all_samples(server: Server, stream: bool) -> None:
    body = {"messages": hi(f"Go on, {stream}"), "n": 4, "stream": stream}
    body["everwarm"] = {"reply": "word " * 2000}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    running: list[Any] = []
    while len(running) < 4 or not all(r["completion"] for r in running):
        running = server.call("GET", "/api/ps")[1]["running"]
        time.sleep(0.01)
    connection.close()
    while server.call("GET", "/api/ps")[1]["running"]:
        time.sleep(0.01)
    turns = records(server, 4)
    assert {t["finish"] for t in turns} == {"cancelled"}
    assert len({t["id"].partition(".")[0] for t in turns}) == 1


def test_little_memory_and_a_short_queue_take_one_request_of_many_samples(
    tmp_path: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERWARM_MAX_QUEUE", "1")
    model = save_talker(tmp_path, smollm2)
    flags = ("--forced-replies", "--memory-budget", "1MiB", "--no-disk")
    with serving(model, *flags) as server, connected(server) as client:
        body = {"everwarm": {"reply": "word " * 40}}
        asked: dict[str, Any] = {"messages": hi("Go on " * 20), "n": 8, "extra_body": body}
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, client, True, **asked)
            while not server.call("GET", "/api/ps")[1]["running"]:
                time.sleep(0.005)
            with pytest.raises(openai.InternalServerError) as full:
                ask(client, False, messages=hi("x"))
            assert full.value.status_code == 503
            assert list(answer.result().ends.values()) == ["stop"] * 8
        assert ask(client, False, messages=hi("x"), max_tokens=2).ends
