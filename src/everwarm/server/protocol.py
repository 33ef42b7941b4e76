"""uvicorn's HTTP protocol with limits on the head of a request: its size, and the time it takes.

uvicorn 0.54 bounds neither when it parses with httptools; once it does, this can go.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from everwarm.server.guard import MAX_HEADER_BYTES


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A head that is too long gets 431, one that does not come 408; both end it."""

    head_s: ClassVar[float] = 30.0
    max_head_bytes: ClassVar[int] = 2 * MAX_HEADER_BYTES

    _in_head = True
    _fed = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._fed += len(data)
        super().data_received(data)
        if self._in_head and self._fed > self.max_head_bytes:
            self._end(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._in_head, self._fed = True, 0
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s, self._late)

    def _late(self) -> None:
        self._deadline = None
        self._end(b"408 Request Timeout")

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, status: bytes) -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head)
            self.transport.close()
