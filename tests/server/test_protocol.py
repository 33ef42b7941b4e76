"""The head of a request is bounded in size and time, over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from everwarm.server.protocol import LimitedProtocol


class Hasty(LimitedProtocol):
    head_s = 0.3


async def greet(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(greet, http=Hasty, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def talk(address: tuple[str, int], *pieces: bytes) -> bytes:
    """Send pieces and read until the server closes."""
    with socket.create_connection(address, timeout=30) as line:
        got = b""
        try:
            for piece in pieces:
                line.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered and closed before it had all
        try:
            while part := line.recv(65536):
                got += part
        except ConnectionResetError:
            pass
        return got


HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"


def test_a_whole_request_is_answered(address: tuple[str, int]) -> None:
    body = b"x" * 300_000
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    assert talk(address, head + body).endswith(b"hi")


@pytest.mark.parametrize("piece", [b"", b"GET / HT", HEAD, HEAD + b"X-Slow: "])
def test_a_head_that_does_not_come_ends_the_connection(
    address: tuple[str, int], piece: bytes
) -> None:
    assert talk(address, piece).startswith(b"HTTP/1.1 408")


def test_a_second_head_on_the_same_line_has_its_deadline_too(address: tuple[str, int]) -> None:
    first = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = talk(address, first, b"GET / HTTP/1.1\r\nHo")
    assert got.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in got


def test_a_head_that_never_ends_is_cut(address: tuple[str, int]) -> None:
    got = talk(address, HEAD, *[b"X-A: " + b"y" * 8192 + b"\r\n"] * 64)
    assert got == b"" or got.startswith(b"HTTP/1.1 431")
