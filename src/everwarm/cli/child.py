"""A server as a child process: started on a free port, ended by its pid with SIGTERM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

from everwarm.errors import EngineError

_READY = re.compile(r"^everwarm serves .* at (http://127\.0\.0\.1:[1-9][0-9]*)")
START_S = 120.0
STOP_S = 20.0


@contextmanager
def running_server(flags: Sequence[str], home: Path | None = None) -> Iterator[str]:
    """Run `everwarm serve` with these flags and give its URL; it ends with the block.

    `home`: another home directory than the user's, for what the server keeps.

    The URL is read from what the server prints once it is ready. Raises EngineError with the
    server's last words if it ends before that, or says nothing for `START_S`.
    """
    command = [sys.executable, "-m", "everwarm", "serve", "--no-remember", "--no-record"]
    command += ["--no-disk"]
    command += ["--host", "127.0.0.1", "--port", "0"]
    env = None if home is None else {**os.environ, "EVERWARM_HOME": str(home)}
    server = subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )
    try:
        yield _wait_for_url(server)
    finally:
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for_url(server: subprocess.Popen[str]) -> str:
    """Read the output to its end on a thread, so that the server never blocks on a full pipe."""
    found: Queue[str | None] = Queue()
    tail: deque[str] = deque(maxlen=5)

    def read() -> None:
        assert server.stdout is not None
        with server.stdout:
            for line in server.stdout:
                tail.append(line.strip())
                if match := _READY.search(line):
                    found.put(match[1])
        found.put(None)

    threading.Thread(target=read, daemon=True, name="child-output").start()
    try:
        url = found.get(timeout=START_S)
    except Empty:
        raise EngineError(f"The server did not start within {START_S:.0f} s.") from None
    if url is None:
        raise EngineError(f"The server ended before it was ready: {' '.join(tail)}")
    return url
