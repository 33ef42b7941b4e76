"""The terminal chat and the client below it, fed through the HTTP library's own transport."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import httpx2
import pytest
from rich.console import Console

from everwarm.cli.chat import Chat, cost
from everwarm.client import ChatClient, ChatReply, Delta
from everwarm.errors import EngineError, RequestError

USAGE = {
    "prompt_tokens": 1055,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 1024},
}


class Served:
    """Answers every chat with the same chunks and keeps the bodies it was sent."""

    def __init__(self, *chunks: object, status: int = 200) -> None:
        self.bodies: list[dict[str, object]] = []
        self._lines = [f"data: {json.dumps(c)}\n\n" for c in chunks] + ["data: [DONE]\n\n"]
        self._status = status
        self._chunks = chunks

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(json.loads(request.content))
        if self._status != 200:
            return httpx2.Response(self._status, json=self._chunks[0])
        return httpx2.Response(200, content=(line.encode() for line in self._lines))

    def client(self) -> ChatClient:
        return ChatClient("http://test/v1", transport=httpx2.MockTransport(self))


def choice(finish: str | None = None, **delta: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def thoughtful() -> Served:
    return Served(
        choice(role="assistant"),
        choice(reasoning_content="hm"),
        choice(content="Good "),
        choice(content="day"),
        choice("stop"),
        {"choices": [], "usage": USAGE},
    )


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=200, highlight=False)


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_the_client_folds_a_stream_into_deltas_and_a_reply() -> None:
    *deltas, reply = thoughtful().client().chat([{"role": "user", "content": "hi"}])
    assert deltas == [Delta("reasoning", "hm"), Delta("text", "Good "), Delta("text", "day")]
    assert isinstance(reply, ChatReply)
    assert (reply.text, reply.finish) == ("Good day", "stop")
    assert (reply.cached_tokens, reply.prefilled_tokens) == (1024, 31)
    assert reply.ttft_s is not None and 0 < reply.ttft_s <= reply.total_s


def test_a_refusal_keeps_the_servers_words_and_the_parameter() -> None:
    served = Served({"error": {"message": "top_k is too large.", "param": "top_k"}}, status=400)
    with pytest.raises(RequestError, match=r"top_k is too large\.") as caught:
        served.client().ask([])
    assert caught.value.param == "top_k"


def test_an_error_in_mid_stream_is_raised() -> None:
    served = Served(choice(content="a"), {"error": {"message": "The engine failed."}})
    with pytest.raises(EngineError, match=r"The engine failed\."):
        served.client().ask([])


def test_a_turn_is_shown_with_its_cost_and_remembered_without_reasoning(screen: Console) -> None:
    served = thoughtful()
    chat = Chat(served.client(), model="m", system="Be kind.", out=screen)
    assert chat.take("hello")
    assert [m["content"] for m in chat.messages] == ["Be kind.", "hello", "Good day"]
    assert "hmGood day" in shown(screen)
    assert "s to first token · 1,024 cached · 31 read" in shown(screen)


def test_regenerate_sends_the_same_messages_again(screen: Console) -> None:
    served = thoughtful()
    chat = Chat(served.client(), model="m", out=screen)
    chat.take("hello")
    chat.take("/regenerate")
    first, second = (body["messages"] for body in served.bodies)
    assert first == second
    assert len(chat.messages) == 2


def test_new_forgets_all_but_the_system_prompt_and_exit_ends(screen: Console) -> None:
    chat = Chat(thoughtful().client(), model="m", system="Be kind.", out=screen)
    chat.take("hello")
    assert chat.take("/new")
    assert [m["role"] for m in chat.messages] == ["system"]
    assert not chat.take("/exit")


def test_ctrl_c_keeps_what_was_said(screen: Console) -> None:
    class Stopped(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield f"data: {json.dumps(choice(content='Goo'))}\n\n".encode()
            raise KeyboardInterrupt

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Stopped()))
    chat = Chat(ChatClient("http://test", transport=transport), model="m", out=screen)
    assert chat.take("hello")
    assert chat.messages[-1] == {"role": "assistant", "content": "Goo"}
    assert "stopped" in shown(screen)


def test_a_question_that_was_refused_is_not_kept(screen: Console) -> None:
    chat = Chat(Served({"error": {"message": "No."}}, status=400).client(), model="m", out=screen)
    chat.take("hello")
    assert chat.messages == []
    assert "No." in shown(screen)


def test_the_cost_line() -> None:
    reply = ChatReply(
        text="x",
        finish="stop",
        prompt_tokens=1055,
        cached_tokens=1024,
        completion_tokens=43,
        ttft_s=0.52,
        total_s=1.52,
    )
    assert cost(reply) == "0.52 s to first token · 1,024 cached · 31 read · 42 tok/s"
