"""For `engine_kills.py`: a server whose engine can be made to fail in ways that no signal can.

python -m killable serve MODEL ...     as `everwarm serve`, with this module as the engine's
python -m killable FD                  the engine: SIGUSR1 raises in a thread, SIGUSR2 exits
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType


def fail() -> None:
    raise RuntimeError("planted by engine_kills.py")


def raise_in_thread(_signal: int, _frame: FrameType | None) -> None:
    threading.Thread(target=fail, name="completion").start()


def leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(7)


def main() -> None:
    if sys.argv[1].isdigit():
        from everwarm.engine.process import EngineHost

        signal.signal(signal.SIGUSR1, raise_in_thread)
        signal.signal(signal.SIGUSR2, leave)
        EngineHost(socket.socket(fileno=int(sys.argv[1]))).run()
    from everwarm.cli import main as command
    from everwarm.supervisor.engine_process import EngineProcess

    EngineProcess.__init__.__defaults__ = ("killable",)  # type: ignore[misc]
    command()


if __name__ == "__main__":
    main()
