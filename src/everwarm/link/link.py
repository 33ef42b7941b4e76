"""One end of a link: a thread that reads packets, and a thread that writes them.

It ends once, for one reason: the other end is gone, what it sent is no packet, or this end closed
it. Whoever waits to send is let go then, and what is sent later is dropped.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from everwarm.link.encoding import BadPacket, decode, encode
from everwarm.link.frames import HEADER, MOST_BYTES, BadFrame, frames, joined
from everwarm.link.packets import VERSION, Hello, Packet

Receive = Callable[[str, Packet], None]
"""Is given what a packet is about, and the packet, on the reading thread. It must not raise."""
MOST_WAITING: Final = 8 << 20
"""Bytes that may wait to be written before `send` waits, too."""
ONE_WRITE: Final = 256 << 10
_BUFFER: Final = 1 << 20
log = logging.getLogger("everwarm.link")


class Link:
    """Live: `post` and `send` from any thread. `start` begins both threads.

    `on_end` is called once, on the reading thread, behind the last packet; it is given the reason,
    or None where the other end closed in order.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._sock = sock
        self._stream = sock.makefile("rb", buffering=ONE_WRITE)
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._nbytes = 0
        self._is_open = True
        self._is_writing = False
        self._why: str | None = None
        self._reader = threading.Thread(target=self._read, name=f"{name}-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"{name}-writer", daemon=True)

    def start(self, receive: Receive, on_end: Callable[[str | None], None]) -> None:
        """Say hello, and begin to read and write."""
        self._receive, self._on_end = receive, on_end
        self.post(Hello(VERSION, os.getpid()))
        self._writer.start()  # the reader waits for its end, which may be now
        self._reader.start()

    def post(self, packet: Packet, about: str = "") -> None:
        """Have a packet written; never waits. Raises BadPacket for one that cannot be sent."""
        self._put(_body(packet, about))

    def send(self, packet: Packet, about: str = "") -> None:
        """As `post`, but waits while the other end does not read what was sent before."""
        body = _body(packet, about)
        with self._changed:
            self._changed.wait_for(lambda: self._nbytes < MOST_WAITING or not self._is_open)
        self._put(body)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is handed to the system. False: it was not in this time, or never."""

        def is_idle() -> bool:
            return not (self._waiting or self._is_writing) or not self._is_open

        with self._changed:
            return self._changed.wait_for(is_idle, timeout_s) and self._is_open

    def close(self, why: str | None = None) -> None:
        """End the link; what is not written yet is lost. `why` as for `on_end`."""
        with self._changed:
            if not self._is_open:
                return
            self._is_open, self._why = False, why
            self._waiting.clear()
            self._changed.notify_all()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("link=gone")  # the other end was quicker

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the ends of both threads; then the socket is closed."""
        for thread in (self._reader, self._writer):
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout_s)

    def _put(self, body: bytes) -> None:
        with self._changed:
            if self._is_open:
                self._waiting.append(body)
                self._nbytes += len(body)
                self._changed.notify_all()

    def _write(self) -> None:
        """Hand over whatever waits, as much as fits in one write at a time."""
        try:
            while bodies := self._take():
                self._sock.sendall(joined(bodies))
        except OSError:
            self.close()  # the reader comes to know why

    def _take(self) -> list[bytes]:
        """The next bodies, once there are some; none when the link has ended."""
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or not self._is_open)
            taken: list[bytes] = []
            size = 0
            while self._waiting and (not taken or size + len(self._waiting[0]) <= ONE_WRITE):
                taken.append(self._waiting.popleft())
                size += len(taken[-1])
            self._nbytes -= size
            self._is_writing = bool(taken)
            return taken

    def _read(self) -> None:
        why: str | None = "A packet could not be taken in."
        try:
            why = self._read_all()
        finally:
            self.close(why)
            self._writer.join()
            self._stream.close()
            self._sock.close()
            self._on_end(self._why)

    def _read_all(self) -> str | None:
        """Receive until the other end closes; the reason, where that is none of its own."""
        try:
            bodies = frames(self._stream)  # type: ignore[arg-type]
            if (first := next(bodies, None)) is not None:
                _greet(first)
            for body in bodies:
                about, packet = decode(body)
                self._receive(about, packet)
        except (BadFrame, BadPacket) as e:
            return str(e)
        except OSError as e:
            return None if not self._is_open else f"The link failed: {e.strerror}."
        return None


def _body(packet: Packet, about: str) -> bytes:
    body = encode(packet, about)
    if len(body) > MOST_BYTES:
        raise BadPacket(f"{type(packet).__name__} has {len(body):,} bytes; too many to be sent.")
    return body


def _greet(body: bytes) -> None:
    """Check the other end's first packet. Raises BadPacket."""
    _, hello = decode(body)
    if not isinstance(hello, Hello) or hello.version != VERSION:
        said = hello.version if isinstance(hello, Hello) else "nothing"
        raise BadPacket(
            f"The other end speaks version {said} of the link, this one {VERSION}. "
            "everwarm was updated while it ran; restart the server."
        )


assert HEADER.size == 4
