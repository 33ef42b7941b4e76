"""A small streaming client of the OpenAI chat API that measures what a person waits for.

It uses nothing that is everwarm's own, so it can measure any server. Times are in seconds on a
monotonic clock, from the moment the request is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
import orjson

from everwarm.errors import EngineError, EverwarmError, RequestError

ChatMessage = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the reply, as it arrives."""

    kind: Literal["text", "reasoning"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """A whole reply: what was said, the server's counts, and the times measured here.

    `calls` are as they go back into the conversation, in an assistant message's `tool_calls`.
    """

    text: str
    finish: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_s: float | None
    total_s: float
    calls: tuple[dict[str, Any], ...] = ()

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens that the server had to read."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def decode_tps(self) -> float | None:
        """Tokens a second behind the first one; None where there was no second token."""
        if self.ttft_s is None or self.completion_tokens < 2 or self.total_s <= self.ttft_s:
            return None
        return (self.completion_tokens - 1) / (self.total_s - self.ttft_s)


class ChatClient:
    """Talks to one server. Owned by one thread; close it, or use it in a `with` block.

    Raises RequestError or EngineError with the server's own words, and EngineError where no server
    answers. `transport` takes the network's place in tests.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        read_timeout: float | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._api_key, self._transport = api_key, transport
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # No read timeout as a rule: a cold prefill may take minutes before the first byte.
        timeout = httpx2.Timeout(read_timeout, connect=5.0)
        self._http = httpx2.Client(
            trust_env=False,  # a local server is never behind the proxy of the environment
            base_url=self.url,
            headers=headers,
            timeout=timeout,
            transport=transport,
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def again(self, *, read_timeout: float) -> ChatClient:
        """Another client of the same server, which gives up after that many seconds of silence."""
        return ChatClient(
            self.url,
            api_key=self._api_key,
            read_timeout=read_timeout,
            transport=self._transport,
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def get(self, path: str) -> Any:
        """The JSON value behind a path."""
        try:
            response = self._http.get(path)
        except httpx2.TransportError as error:
            raise self._unreachable() from error
        if not response.is_success:
            raise _refusal(response.status_code, response.content)
        try:
            return response.json()
        except ValueError:
            raise EngineError(f"{self.url}{path} did not answer with JSON.") from None

    def post(self, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Send a body as it is; the JSON values of the answer: all of a stream, or the one."""
        try:
            response = self._http.post(path, **_json(body))
        except httpx2.ConnectError as error:
            raise self._unreachable() from error
        except httpx2.TransportError as error:
            raise EngineError("The connection to the server broke in mid-reply.") from error
        if not response.is_success:
            raise _refusal(response.status_code, response.content)
        try:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return list(_chunks(response))
            return [response.json()]
        except ValueError:
            raise EngineError(f"{self.url}{path} did not answer with JSON.") from None

    def models(self) -> list[str]:
        """The ids of the models that are served."""
        return [str(m["id"]) for m in self.get("/v1/models")["data"]]

    def chat(
        self, messages: Sequence[ChatMessage], **params: Any
    ) -> Generator[Delta | ChatReply, None, None]:
        """Ask for a streamed reply: its deltas as they come, the whole `ChatReply` last.

        Closing the iterator closes the connection, which tells the server to stop.
        """
        options = {"include_usage": True}
        body = {"messages": list(messages), "stream": True, "stream_options": options, **params}
        sent = time.perf_counter()
        try:
            with self._http.stream("POST", "/v1/chat/completions", **_json(body)) as response:
                if not response.is_success:
                    raise _refusal(response.status_code, response.read())
                yield from _fold(_chunks(response), sent)
        except httpx2.ConnectError as error:
            raise self._unreachable() from error
        except httpx2.TransportError as error:
            raise EngineError("The connection to the server broke in mid-reply.") from error

    def ask(self, messages: Sequence[ChatMessage], **params: Any) -> ChatReply:
        """Ask, and wait for the whole reply."""
        *_, reply = self.chat(messages, **params)
        assert isinstance(reply, ChatReply)
        return reply

    def _unreachable(self) -> EngineError:
        return EngineError(
            f"No server answers at {self.url}; start one with `everwarm serve`, or name it "
            "with --url."
        )


def _json(body: Mapping[str, Any]) -> dict[str, Any]:
    """Encode a body with orjson, since the time that it takes counts as waiting."""
    try:
        content = orjson.dumps(body)
    except TypeError:  # a lone surrogate, which orjson refuses
        content = json.dumps(body).encode()
    return {"content": content, "headers": {"Content-Type": "application/json"}}


def _chunks(response: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The JSON values of the `data:` lines, up to `[DONE]`."""
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise _refusal(500, data.encode())
        yield chunk


def _fold(chunks: Iterator[dict[str, Any]], sent: float) -> Iterator[Delta | ChatReply]:
    said: list[str] = []
    first: float | None = None
    finish: str | None = None
    usage: Mapping[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices", ()):
            finish = choice.get("finish_reason") or finish
            for part in (choice.get("delta") or {}).get("tool_calls") or ():
                first = first or time.perf_counter()
                _add_call(calls, part)
            for delta in _deltas(choice.get("delta") or {}):
                first = first or time.perf_counter()
                if delta.kind == "text":
                    said.append(delta.text)
                yield delta
    yield ChatReply(
        text="".join(said),
        finish=finish,
        prompt_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        completion_tokens=usage.get("completion_tokens", 0),
        ttft_s=None if first is None else first - sent,
        total_s=time.perf_counter() - sent,
        calls=tuple(calls.values()),
    )


def _add_call(calls: dict[int, dict[str, Any]], part: Mapping[str, Any]) -> None:
    """Add a part of a tool call: its id and name come first, its arguments in pieces."""
    told = part.get("function") or {}
    index = int(part.get("index") or 0)
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call = calls.setdefault(index, empty)
    call["id"] = part.get("id") or call["id"]
    call["function"]["name"] = told.get("name") or call["function"]["name"]
    call["function"]["arguments"] += told.get("arguments") or ""


def _deltas(delta: Mapping[str, Any]) -> Iterator[Delta]:
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if thought:
        yield Delta("reasoning", thought)
    if delta.get("content"):
        yield Delta("text", delta["content"])


def _refusal(status: int, body: bytes) -> EverwarmError:
    """The server's error as one of ours, in its words where it sent an error of either shape."""
    try:
        error = json.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = f"The server answered with status {status}.", None
    if status >= 500:
        return EngineError(message)
    refused = RequestError(message, param=param)
    refused.status = status
    return refused
