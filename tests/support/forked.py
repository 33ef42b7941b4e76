"""`everwarm` processes without their imports: forked from one that has imported it all.

    python forked.py FD     a Unix socket; a line of JSON in for each process, with its descriptors

    {"argv", "env", "cwd"}, [stdout, stderr]  ->  {"pid"}, and at its end {"pid", "code"}

What runs is the program's own `main`. Tests of starting itself use `python -m everwarm`.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

MODULES = (
    "everwarm.cli", "everwarm.serve", "everwarm.compose", "everwarm.text.load",
    "everwarm.history.database", "everwarm.history.reply_table", "everwarm.models.found",
    "everwarm.supervisor.engine_process",
)  # fmt: skip
LOOK_S = 0.02
"""How often to look for processes that have ended."""


class Forked:
    """A running `everwarm`, with the face of `subprocess.Popen` as far as tests use it.

    `command`: [sys.executable, "-m", "everwarm", ...]. Output that is piped is text.
    """

    def __init__(
        self, command: list[str], *, stdout: Any = None, stderr: Any = None,
        text: bool = True, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    ) -> None:  # fmt: skip
        assert command[:3] == [sys.executable, "-m", "everwarm"] and text
        self.args = command
        self.stdout, out = _end(stdout, 1)
        is_one = stderr == subprocess.STDOUT
        self.stderr, err = (None, os.dup(out)) if is_one else _end(stderr, 2)
        self.returncode: int | None = None
        self._ended = threading.Event()
        job = {"argv": command[2:], "env": dict(os.environ if env is None else env)}
        self.pid = _parent().start(job | {"cwd": str(cwd or Path.cwd())}, [out, err], self._note)
        for fd, given in ((out, stdout), (err, stderr)):
            if given in (subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT):
                os.close(fd)

    def _note(self, code: int) -> None:
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and we are about to hear of it
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _end(wanted: Any, own: int) -> tuple[IO[str] | None, int]:
    """Our end of an output, and the process's."""
    if wanted == subprocess.PIPE:
        read, write = os.pipe()
        return os.fdopen(read, "r"), write
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, own if wanted is None else wanted if isinstance(wanted, int) else wanted.fileno()


class _Parent:
    """The process that forks, from this side. It ends with ours, whose socket it reads."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket, self._lock = ours, threading.Lock()
        self._started: list[int] = []
        self._has_started = threading.Semaphore(0)
        self._notes: dict[int, Any] = {}
        self._codes: dict[int, int] = {}  # of processes that ended before anybody noted them
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, job: dict[str, Any], fds: list[int], note: Any) -> int:
        with self._lock:
            line = json.dumps(job).encode() + b"\n"
            socket.send_fds(self._socket, [len(line).to_bytes(8, "big")], fds)
            self._socket.sendall(line)
            assert self._has_started.acquire(timeout=60), "the process that forks has ended"
            pid = self._started.pop()
            self._notes[pid] = note
        if pid in self._codes:
            note(self._codes.pop(pid))
        return pid

    def _listen(self) -> None:
        for line in self._socket.makefile("rb"):
            told = json.loads(line)
            if "code" in told:
                self._codes[told["pid"]] = told["code"]
                if note := self._notes.pop(told["pid"], None):
                    note(self._codes.pop(told["pid"]))
            else:
                self._started.append(told["pid"])
                self._has_started.release()


_made: list[_Parent] = []


def _parent() -> _Parent:
    if not _made or _made[0]._process.poll() is not None:
        _made[:] = [_Parent()]
    return _made[0]


# --- the process that forks ---


def _main(fd: int) -> None:
    for name in MODULES:
        __import__(name)
    assert not any(n.split(".")[0] in ("mlx", "mlx_lm") for n in sys.modules), "MLX forks badly"
    gc.freeze()
    theirs = socket.socket(fileno=fd)
    n_running = 0
    while True:
        if select.select([theirs], [], [], LOOK_S if n_running else None)[0]:
            size, fds, _, _ = socket.recv_fds(theirs, 8, 2)
            if not size:
                os._exit(0)
            _fork(theirs, int.from_bytes(size, "big"), fds)
            n_running += 1
        while n_running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            n_running -= 1
            _tell(theirs, pid=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


def _fork(theirs: socket.socket, size: int, fds: list[int]) -> None:
    line = b""
    while len(line) < size:
        line += theirs.recv(size - len(line))
    pid = os.fork()
    if pid == 0:
        theirs.close()
        _run(json.loads(line), fds)
    for fd in fds:
        os.close(fd)
    _tell(theirs, pid=pid)


def _tell(theirs: socket.socket, **what: int) -> None:
    theirs.sendall(json.dumps(what).encode() + b"\n")


def _run(job: dict[str, Any], fds: list[int]) -> None:
    code: Any = 1
    try:
        for fd, own in zip(fds, (1, 2), strict=True):
            os.dup2(fd, own)
            os.close(fd)
        os.environ.clear()
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        sys.argv = job["argv"]
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        from everwarm.cli import main

        main()
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
