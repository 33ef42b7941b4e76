"""uvicorn's HTTP protocol with limits: on request heads, connections, and bytes after an answer.

uvicorn 0.54 bounds none of them where it parses with httptools; once it does, this can go.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from everwarm.server.guard import MAX_HEADER_BYTES
from everwarm.server.refusals import Refusals


class Connections:
    """The open connections, how many there may be, and which of them wait for a request.

    Where one more is opened, the one that has waited longest is closed; where all others are being
    answered, that is the new one. Lives on the event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[LimitedProtocol] = set()
        self._waiting: dict[LimitedProtocol, None] = {}
        self._refusals = Refusals()

    def refused(self, status: bytes) -> None:
        """Log that a connection ends with this status before its request was read."""
        self._refusals.note({"method": "-", "path": "-", "headers": ()}, int(status[:3]))

    def opened(self, one: LimitedProtocol) -> None:
        self._open.add(one)
        self._waiting[one] = None
        if len(self._open) > self._most:
            longest = next(iter(self._waiting))
            self.closed(longest)
            longest.end(b"503 Service Unavailable")

    def closed(self, one: LimitedProtocol) -> None:
        self._open.discard(one)
        self._waiting.pop(one, None)

    def waits(self, one: LimitedProtocol) -> None:
        """The connection waits for its next request."""
        if one in self._open:
            self._waiting.setdefault(one)

    def is_busy(self, one: LimitedProtocol) -> None:
        """The connection's request has arrived, with its body."""
        self._waiting.pop(one, None)


class LimitedProtocol(HttpToolsProtocol):
    """One connection. It is closed after a head that is too long (431) or does not arrive (408).

    An answer that is given before the request's body has arrived closes it too: for `linger_s`,
    what still arrives is thrown away, so that the client can read the answer.
    """

    head_s: ClassVar[float] = 30.0
    linger_s: ClassVar[float] = 2.0
    max_head_bytes: ClassVar[int] = 2 * MAX_HEADER_BYTES

    _in_head = True
    _in_body = False
    _lingers = False
    _fed = 0
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, all: Connections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._all = all

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()
        self._all.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._all.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        if self._in_head:
            self._fed += len(data)
        super().data_received(data)
        if self._in_head and self._fed > self.max_head_bytes:
            self.end(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._all.is_busy(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._in_body:
            self._linger()
        elif is_last:
            self._all.waits(self)

    def end(self, status: bytes) -> None:
        """Close the connection with an answer that has no body."""
        if not self.transport.is_closing():
            head = b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head)
            self._all.refused(status)
            self.transport.close()

    def _linger(self) -> None:
        """Close it later: with unread bytes, the system would throw the answer away."""
        self._lingers = True
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self._deadline = self.loop.call_later(self.linger_s, self.transport.close)

    def _expect_head(self) -> None:
        self._in_head, self._fed = True, 0
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s, self._late)

    def _late(self) -> None:
        self._deadline = None
        self.end(b"408 Request Timeout")

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
