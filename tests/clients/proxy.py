"""Between an agent and the server: passes everything on, and dictates what the model says."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ASKS = ("/chat/completions", "/responses", "/messages")
_DROPPED = {"host", "content-length", "accept-encoding", "connection"}


@dataclass(frozen=True, slots=True)
class Answer:
    """How the server answered one request of an agent. `ignored`: the header of that name."""

    method: str
    path: str
    status: int
    ignored: str


class Dictation:
    """What the model will say to requests with tools (or `to_all`), in order; others get a title.

    `answers` lists how the server answered each request, in the order of the answers' heads.

    `words` counts the times that `word` of a long reply reached the agent, so that a test can stop
    it in the middle. The first request with tools that takes `cut_s` loses its connection, as by a
    timeout on the way; what it was to be told is then for the next. Shared by the threads of the
    proxy.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.replies: list[str] = []
        self.answers: list[Answer] = []
        self.words = 0
        self.cut_s = math.inf
        self.to_all = False
        self._lock = threading.Lock()

    def reply(self, body: dict[str, Any]) -> str:
        with self._lock:
            if not (body.get("tools") or self.to_all) or not self.replies:
                return "A title"
            self.words = 0
            return self.replies.pop(0)

    def cuts(self, body: dict[str, Any], taken_s: float) -> bool:
        """Whether this request is the one to be cut, now."""
        with self._lock:
            if not body.get("tools") or taken_s < self.cut_s:
                return False
            self.cut_s = math.inf
            self.replies.insert(0, body["everwarm"]["reply"])
            return True


@contextmanager
def proxy(port: int) -> Iterator[tuple[str, Dictation]]:
    """The URL for the agent; ends with the block."""
    said = Dictation(port)
    handler = type("Handler", (_Handler,), {"said": said})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", said
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    said: Dictation

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        body: dict[str, Any] = {}
        if self.path.partition("?")[0].endswith(ASKS):
            body = json.loads(raw)
            body["everwarm"] = {"reply": self.said.reply(body)}
            raw = json.dumps(body).encode()
        self._forward(raw, body)

    def do_GET(self) -> None:
        self._forward(None, {})

    do_HEAD = do_GET

    def _forward(self, raw: bytes | None, body: dict[str, Any]) -> None:
        """An agent that leaves takes the server's request with it."""
        begun = time.monotonic()
        line = http.client.HTTPConnection("127.0.0.1", self.said.port, timeout=900)
        kept = {k: v for k, v in self.headers.items() if k.lower() not in _DROPPED}
        line.request(self.command, self.path, raw, kept)
        answer = line.getresponse()
        ignored = answer.getheader("x-everwarm-ignored") or ""
        self.said.answers.append(Answer(self.command, self.path, answer.status, ignored))
        self.send_response(answer.status)
        self.send_header("content-type", answer.getheader("content-type") or "text/plain")
        has_body = self.command != "HEAD"
        if has_body:  # chunked, so that an agent can tell an end from a loss
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            while part := answer.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
                self.said.words += part.count(b"word")
                if self.said.cuts(body, time.monotonic() - begun):
                    return
            if has_body:
                self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            line.close()
