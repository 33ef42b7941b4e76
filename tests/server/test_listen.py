"""The socket that a client's tokens leave by."""

from __future__ import annotations

import asyncio
import socket

import pytest

from everwarm.config import Settings
from everwarm.server.listening import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_first_token_does_not_wait_for_the_clients_acknowledgement(host: str) -> None:
    listening = listen(Settings(host=host, port=0))
    if listening is None and host == "::1":
        pytest.skip("no IPv6 here")
    assert listening is not None

    async def nodelay() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sock = writer.get_extra_info("socket")
            seen.set_result(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(met, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            got = await seen
            writer.close()
            await writer.wait_closed()
        return got

    assert asyncio.run(nodelay()) != 0
