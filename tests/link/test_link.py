"""A link between two ends: order, back-pressure, and that it ends for a reason, never hangs."""

from __future__ import annotations

import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from everwarm.job import Job, Token
from everwarm.link.encoding import encode
from everwarm.link.frames import joined
from everwarm.link.link import MOST_WAITING, Link
from everwarm.link.packets import VERSION, CancelJob, CheckGrammar, Hello, Packet
from everwarm.request import Sampling
from everwarm.tokens import tokens_of

WAIT_S = 20


class End:
    """One end, and what it heard."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: queue.SimpleQueue[tuple[str, Packet]] = queue.SimpleQueue()
        self.reasons: list[str | None] = []
        self.has_ended = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.link = Link(sock, "test")
        self.link.start(self._receive, self._end)

    def next(self) -> tuple[str, Packet]:
        return self.heard.get(timeout=WAIT_S)

    def _receive(self, about: str, packet: Packet) -> None:
        self.goes_on.wait(WAIT_S)
        self.heard.put((about, packet))

    def _end(self, why: str | None) -> None:
        self.reasons.append(why)
        self.has_ended.set()


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    a, b = map(End, socket.socketpair())
    yield a, b
    for end in (a, b):
        end.link.close()
        end.link.join(WAIT_S)


@pytest.fixture
def foreign() -> Iterator[tuple[End, socket.socket]]:
    """An end of ours, and a socket on which anything can be written."""
    ours, theirs = socket.socketpair()
    end = End(ours)
    yield end, theirs
    end.link.close()
    end.link.join(WAIT_S)
    theirs.close()


def test_packets_arrive_in_order_in_both_directions(ends: tuple[End, End]) -> None:
    a, b = ends
    for n in range(1000):
        a.link.post(Token(n), "job")
        b.link.send(CancelJob(), str(n))
    assert [b.next() for _ in range(1000)] == [("job", Token(n)) for n in range(1000)]
    assert [a.next()[0] for _ in range(1000)] == [str(n) for n in range(1000)]


def test_a_large_packet_arrives_whole(ends: tuple[End, End]) -> None:
    a, b = ends
    big = Job("big", tokens_of(range(5_000_000)), (), Sampling(), 1)
    a.link.post(big, "big")
    a.link.post(Token(1), "small")
    assert b.next() == ("big", big) and b.next()[0] == "small"


def test_who_sends_waits_while_nobody_reads(ends: tuple[End, End]) -> None:
    a, b = ends
    b.goes_on.clear()
    text = CheckGrammar("x" * (1 << 20))
    sent: list[int] = []

    def send_all() -> None:
        for n in range(40):
            a.link.send(text, str(n))
            sent.append(n)

    thread = threading.Thread(target=send_all)
    thread.start()
    time.sleep(1)
    waiting = len(sent)
    assert waiting < 20 and a.link._nbytes <= MOST_WAITING + (2 << 20)
    a.link.post(CancelJob(), "never waits")
    b.goes_on.set()
    thread.join(WAIT_S)
    assert [b.next()[0] for _ in range(41)].count("never waits") == 1
    assert sent == list(range(40))


def test_the_end_of_the_link_lets_go_who_waits_to_send(ends: tuple[End, End]) -> None:
    a, b = ends
    b.goes_on.clear()

    def send_all() -> None:
        for _ in range(40):
            a.link.send(CheckGrammar("x" * (1 << 20)))

    thread = threading.Thread(target=send_all)
    thread.start()
    time.sleep(0.3)
    a.link.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    b.goes_on.set()


def test_all_that_was_posted_arrives_before_the_end(ends: tuple[End, End]) -> None:
    a, b = ends
    for n in range(1000):
        a.link.post(Token(n))
    assert a.link.flush(WAIT_S)
    a.link.close()
    assert b.has_ended.wait(WAIT_S) and b.reasons == [None]
    assert b.heard.qsize() == 1000
    b.link.post(Token(1))  # is dropped
    assert not b.link.flush(1)


def test_a_closed_link_leaves_nothing_open() -> None:
    before = len(os.listdir("/dev/fd")), threading.active_count()
    for _ in range(20):
        a, b = map(End, socket.socketpair())
        a.link.close()
        for end in (a, b):
            assert end.has_ended.wait(WAIT_S)
            end.link.join(WAIT_S)
            assert end.reasons == [None]
    assert (len(os.listdir("/dev/fd")), threading.active_count()) == before


def test_a_link_whose_other_end_is_gone_before_it_starts_ends_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def lose_the_processor(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.2)

    monkeypatch.setattr(threading.Thread, "start", lose_the_processor)
    ours, theirs = socket.socketpair()
    theirs.close()
    end = End(ours)
    assert end.has_ended.wait(WAIT_S)
    end.link.join(WAIT_S)
    assert end.reasons == [None] and ours.fileno() == -1


HELLO = joined([encode(Hello(VERSION, 1))])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bytes; the most are"),
        (joined([encode(Token(1))]), "speaks version nothing"),
        (joined([encode(Hello(VERSION + 1, 1))]), f"speaks version {VERSION + 1}"),
        (joined([b""]), "cannot be read"),
        (HELLO + joined([b"nonsense"]), "cannot be read"),
        (HELLO + struct.pack("<I", 0xFFFFFFFF), "bytes; the most are"),
        (HELLO + struct.pack("<I", 100) + b"short", "within a frame"),
        (HELLO + b"\x01\x00", "within a frame's length"),
    ],
)
def test_what_is_no_packet_ends_the_link_with_a_reason(
    foreign: tuple[End, socket.socket], data: bytes, why: str
) -> None:
    end, sock = foreign
    sock.sendall(data)
    if "within" in why:
        sock.shutdown(socket.SHUT_WR)
    assert end.has_ended.wait(WAIT_S)
    assert len(end.reasons) == 1 and why in str(end.reasons[0])
    assert end.heard.empty()


def test_random_streams_end_the_link(foreign: tuple[End, socket.socket]) -> None:
    end, sock = foreign
    sock.sendall(HELLO)
    try:
        for _ in range(1000):
            sock.sendall(os.urandom(1000))
    except OSError:
        pass
    sock.close()
    assert end.has_ended.wait(WAIT_S)


def test_a_reader_that_fails_ends_the_link(foreign: tuple[End, socket.socket]) -> None:
    ours, theirs = socket.socketpair()
    reasons: list[str | None] = []
    has_ended = threading.Event()
    raised: list[object] = []

    def fails(about: str, packet: Packet) -> None:
        raise RuntimeError("planted")

    def ended(why: str | None) -> None:
        reasons.append(why)
        has_ended.set()

    before, threading.excepthook = threading.excepthook, lambda args: raised.append(args.exc_type)
    try:
        link = Link(ours, "test")
        link.start(fails, ended)
        theirs.sendall(HELLO + joined([encode(Token(1))]))
        assert has_ended.wait(WAIT_S)
        link.join(WAIT_S)
    finally:
        threading.excepthook = before
        theirs.close()
    assert reasons == ["A packet could not be taken in."] and raised == [RuntimeError]
