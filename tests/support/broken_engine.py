"""An engine process with planted faults: `python -m broken_engine FD`.

A job whose id begins with the name of a fault meets it at its first token, on the engine's thread.
The grammar "abort" ends the process that compiles it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from everwarm.engine.process import EngineHost
from everwarm.job import Output, Token
from everwarm.link.packets import CheckGrammar


class Fatal(BaseException):
    """Nothing catches it but the end of the engine's thread."""


def exception() -> None:
    raise RuntimeError("planted in a thread")


def in_thread() -> None:
    """Let a thread die of an exception, and the step go on long enough to be in its way."""
    threading.Thread(target=exception).start()
    time.sleep(60)


def abort_in_thread() -> None:
    """As Metal's completion handlers do: native code of another thread calls abort."""
    threading.Thread(target=ctypes.CDLL(None).abort).start()
    time.sleep(60)


def fatal() -> None:
    raise Fatal


def crash() -> None:
    ctypes.string_at(0)


def deaf() -> None:
    """Keep every thread of the interpreter from running."""
    ctypes.PyDLL(None).sleep(600)


FAULTS = {
    "exit": lambda: os._exit(5),
    "leave": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "crash": crash,
    "thread": in_thread,
    "native": abort_in_thread,
    "fatal": fatal,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "stuck": lambda: time.sleep(600),
    "deaf": deaf,
}


class BrokenHost(EngineHost):
    """Sends what it should, until it meets a fault."""

    def _tell(self, job_id: str, output: Output) -> None:
        name = job_id.split("-")[0]
        if isinstance(output, Token):
            if name == "garble":
                self.link._sock.sendall(b"\x05\0\0\0nonsense")
                time.sleep(60)
            elif name in FAULTS:
                FAULTS[name]()
        super()._tell(job_id, output)

    def _answer(self, number: str, call: Any, engine: Any) -> None:
        if isinstance(call, CheckGrammar) and call.grammar == "abort":
            os.abort()
        super()._answer(number, call, engine)


if __name__ == "__main__":
    BrokenHost(socket.socket(fileno=int(sys.argv[1]))).run()
