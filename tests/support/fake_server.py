"""A chat server behind a transport: a token is a word, and the longest known head is warm."""

from __future__ import annotations

import json
from typing import Any

import httpx2


class FakeServer:
    """Counts as a server does. `stop_at`: the request at which somebody presses Ctrl-C.

    `ours`: it also tells what it read, as everwarm does. `no_tools`: it refuses tools' results.
    """

    def __init__(
        self,
        *,
        stop_at: int | None = None,
        context_length: int | None = None,
        ours: bool = False,
        no_tools: bool = False,
    ) -> None:
        self._no_tools = no_tools
        self._ours = ours
        self._record: dict[str, Any] = {}
        self.seen: list[list[str]] = []
        self.bodies: list[dict[str, Any]] = []
        self._stop_at = stop_at
        self._model: dict[str, Any] = {"id": "fake"}
        if context_length is not None:
            self._model["context_length"] = context_length
        self.transport = httpx2.MockTransport(self._answer)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/models":
            return httpx2.Response(200, json={"data": [self._model]})
        if request.url.path == "/api/ps" and self._ours:
            return httpx2.Response(200, json={"engine": {"cache_bytes": 4 * len(self.seen)}})
        if request.url.path == "/api/turns" and self._ours:
            return httpx2.Response(200, json={"turns": [self._record]})
        if request.method == "GET":
            return httpx2.Response(404, json={"error": {"message": "not here"}})
        body = json.loads(request.content)
        self.bodies.append(body)
        if len(self.bodies) == self._stop_at:
            raise KeyboardInterrupt
        if self._no_tools and any(m["role"] == "tool" for m in body["messages"]):
            return httpx2.Response(500, json={"error": {"message": "no tools here"}})
        return self._chat(body)

    def _chat(self, body: dict[str, Any]) -> httpx2.Response:
        words = [w for m in body["messages"] for w in (f"<{m['role']}>", *_words(m))]
        cached = max((_common(words, old) for old in self.seen), default=0)
        said = [f"w{len(self.seen)}x{i}" for i in range(min(4, body.get("max_tokens", 4)))]
        if "everwarm" in body:
            said = body["everwarm"]["reply"].split()
        self.seen.append([*words, "<assistant>", *said])
        usage = {
            "prompt_tokens": len(words) + 1,
            "completion_tokens": len(said),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        counts = dict.fromkeys(("unseen_tokens", "new_tokens"), len(words) + 1 - cached)
        self._record = {"prompt_tokens": len(words) + 1, **counts}
        chunks = [{"choices": [{"delta": {"content": f"{w} "}}]} for w in said]
        lines = [*chunks, {"choices": [{"delta": {}, "finish_reason": "length"}], "usage": usage}]
        text = "".join(f"data: {json.dumps(c)}\n\n" for c in lines)
        return httpx2.Response(200, content=f"{text}data: [DONE]\n\n")


def _words(message: dict[str, Any]) -> list[str]:
    return str(message.get("content") or "").split()


def _common(a: list[str], b: list[str]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n
