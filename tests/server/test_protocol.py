"""Heads, connections, and what comes behind an answer are bounded, over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn

from everwarm.server.protocol import Connections, LimitedProtocol

MOST = 20


class Hasty(LimitedProtocol):
    head_s = 0.3
    linger_s = 0.3


class Patient(LimitedProtocol):
    head_s = 600.0


async def greet(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] != "/refused":
        while (await receive()).get("more_body"):
            pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"hi"})


@contextmanager
def listening(protocol: type[LimitedProtocol]) -> Iterator[tuple[str, int]]:
    """A server with this protocol, for at most `MOST` connections."""
    listening = socket.create_server(("127.0.0.1", 0))
    http: Any = partial(protocol, all=Connections(MOST))
    config = uvicorn.Config(greet, http=http, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with listening(Hasty) as at:
        yield at


@pytest.fixture(scope="module")
def patient() -> Iterator[tuple[str, int]]:
    with listening(Patient) as at:
        yield at


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


WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HALVES = {
    "nothing": b"",
    "half a head": b"POST / HT",
    "half a body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_those_that_send_no_request_keep_nobody_out(patient: tuple[str, int], half: bytes) -> None:
    with ExitStack() as lines:
        opened = []
        for _ in range(4 * MOST):
            line = lines.enter_context(socket.create_connection(patient, timeout=30))
            line.sendall(half)
            opened.append(line)
        assert talk(patient, WHOLE).endswith(b"hi")
        assert opened[0].recv(100).startswith(b"HTTP/1.1 503")


def test_a_connection_that_is_kept_open_is_answered_among_many(patient: tuple[str, int]) -> None:
    with socket.create_connection(patient, timeout=30) as line:
        for _ in range(3 * MOST):
            line.sendall(WHOLE.replace(b"close", b"keep-alive"))
            got = b""
            while not got.endswith(b"hi"):
                got += line.recv(4096)
            assert talk(patient, WHOLE).endswith(b"hi")


def test_a_body_that_trickles_behind_its_answer_is_not_waited_for(address: tuple[str, int]) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(address, timeout=30) as line:
        line.sendall(head + b"x")
        got = b""
        while part := line.recv(4096):
            got += part
        assert got.endswith(b"hi")
        with pytest.raises(OSError):
            while True:
                line.sendall(b"x" * 65536)


def test_an_answer_reaches_a_client_that_is_still_sending(address: tuple[str, int]) -> None:
    body = b"x" * 3_000_000
    head = b"POST /refused HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert talk(address, head + body).endswith(b"hi")


def test_requests_in_a_row_are_all_answered(address: tuple[str, int]) -> None:
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n123456789"
    got = talk(address, post + post + post[:-3], post[-3:] + WHOLE)
    assert got.count(b"HTTP/1.1 200") == 4
