"""How many connections there may be, and what is said where no descriptor is left."""

from __future__ import annotations

import asyncio
import errno
import logging
import subprocess
import sys

import pytest

from everwarm.server.descriptors import LoopErrors, n_connections

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from everwarm.server.descriptors import raise_limit
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard"), [(256, 1024), (1024, 1024), (512, 6000)])
def test_the_limit_is_raised_as_far_as_it_may_be(soft: int, hard: int) -> None:
    code = LIMITED.format(soft=soft, hard=hard)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(hard)] * 3


def test_connections_leave_room_for_files() -> None:
    assert [n_connections(n) for n in (10, 256, 1024, 4096, 2**20)] == [16, 16, 768, 1024, 1024]


def test_that_no_descriptor_is_left_is_said_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    say = LoopErrors(lambda: now[0])
    loop = asyncio.new_event_loop()
    with caplog.at_level(logging.WARNING):
        for _ in range(2000):
            now[0] += 0.06
            say(
                loop, {"message": "socket.accept()", "exception": OSError(errno.EMFILE, "Too many")}
            )
    assert len(caplog.records) == 2
    with caplog.at_level(logging.ERROR):
        say(loop, {"message": "something else", "exception": OSError(errno.EPIPE, "Broken")})
    assert "something else" in caplog.records[-1].message
    loop.close()
