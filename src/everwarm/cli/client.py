"""A small streaming client of the chat API, for the commands that talk to a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from everwarm.errors import EngineError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer and what it cost, as the server told and as the client saw."""

    text: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_s: float

    @property
    def prefilled_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens


class Client:
    """Talks to one server. Every failure is an `EngineError` with one sentence."""

    def __init__(self, url: str, api_key: str | None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx2.Timeout(None, connect=10.0)  # a long prefill is silent for minutes
        self._url = url
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """A page of the server, as JSON."""
        with self._failures():
            response = self._http.get(path)
            _check(response)
            return response.json()

    def model(self) -> str:
        """The id of the model that is served."""
        try:
            return str(self.get("/v1/models")["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise EngineError(f"The server at {self._url} lists no model.") from None

    def chat(
        self,
        messages: Sequence[Json],
        *,
        show: Callable[[str], None] = lambda text: None,
        **body: object,
    ) -> Reply:
        """One streamed turn; `show` gets the text as it arrives."""
        body |= {
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        text: list[str] = []
        usage: Json = {}
        first: float | None = None
        start = time.perf_counter()
        with self._failures():
            for chunk in self._chunks(body):
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices", ()):
                    delta = choice.get("delta") or {}
                    part = delta.get("content") or ""
                    if first is None and (part or delta.get("reasoning_content")):
                        first = time.perf_counter()
                    if part:
                        text.append(part)
                        show(part)
        end = time.perf_counter() if first is None else first
        return _reply("".join(text), usage, end - start)

    def _chunks(self, body: Mapping[str, object]) -> Iterator[Json]:
        with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code >= 400:
                response.read()
            _check(response)
            for line in response.iter_lines():
                if not line.startswith("data:") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data:"))
                if "error" in chunk:
                    raise EngineError(_message(chunk))
                yield chunk

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError:
            raise EngineError(
                f"No server answers at {self._url}; start one with `everwarm serve`."
            ) from None
        except (httpx2.HTTPError, json.JSONDecodeError) as error:
            raise EngineError(f"The server at {self._url} broke off: {error}.") from error


def _reply(text: str, usage: Json, ttft_s: float) -> Reply:
    details = usage.get("prompt_tokens_details") or {}
    return Reply(
        text=text,
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        cached_tokens=int(details.get("cached_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens", 0)),
        ttft_s=ttft_s,
    )


def _check(response: httpx2.Response) -> None:
    if response.status_code < 400:
        return
    try:
        message = _message(response.json())
    except json.JSONDecodeError:
        message = "no reason given"
    raise EngineError(f"The server answers {response.status_code}: {message}")


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message", error)) if isinstance(error, dict) else str(error or body)
