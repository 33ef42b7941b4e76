"""An engine process that dies as Metal's completion handler does, once a file says so.

python -m engine_out_of_memory FD      EVERWARM_ABORT_FILE names the file
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from pathlib import Path

LAST_WORDS = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
    "buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)\n"
)


def watch(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)
    path.unlink()
    os.write(2, LAST_WORDS.encode())
    os.abort()


if __name__ == "__main__":
    path = Path(os.environ["EVERWARM_ABORT_FILE"])
    threading.Thread(target=watch, args=(path,), daemon=True).start()
    sys.argv = ["everwarm.engine.process", *sys.argv[1:]]
    runpy.run_module("everwarm.engine.process", run_name="__main__")
