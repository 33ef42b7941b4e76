"""`everwarm serve`, with a model that is slow at reading: for slow.py.

    slow_server.py serve MODEL ...     as `everwarm serve`, with this file as the engine's
    python -m slow_server FD           the engine

What is slow is the model itself, a third party to everwarm. SLOW_S: seconds in all, SLOW_STEP_S: in
one step of prefill.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any


def slow_down() -> None:
    """Have mlx-lm load models that are slow."""
    import mlx_lm.utils

    load = mlx_lm.utils.load_model
    left = [float(os.environ["SLOW_S"])]

    def slow_load(*args: Any, **kwargs: Any) -> Any:
        model, *rest = load(*args, **kwargs)
        kind: Any = type(model)
        plain = kind.__call__

        def call(self: Any, ids: Any, *args: Any, **kwargs: Any) -> Any:
            if ids.shape[-1] >= 32 and left[0] > 0:
                step = min(left[0], float(os.environ["SLOW_STEP_S"]))
                left[0] -= step
                time.sleep(step)
            return plain(self, ids, *args, **kwargs)

        kind.__call__ = call
        return model, *rest

    mlx_lm.utils.load_model = slow_load


def main() -> None:
    if sys.argv[1].isdigit():
        from everwarm.engine.process import EngineHost

        slow_down()
        EngineHost(socket.socket(fileno=int(sys.argv[1]))).run()
    from everwarm.cli import main as command
    from everwarm.supervisor.engine_process import EngineProcess

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    EngineProcess.__init__.__defaults__ = ("slow_server",)  # type: ignore[misc]
    command()


if __name__ == "__main__":
    main()
