"""An engine process whose MLX does not fit the machine: `python -m engine_with_broken_mlx FD`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from types import ModuleType

from everwarm.engine.process import EngineHost


class BrokenMlx:
    """Finds MLX, whose library cannot be loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> None:
        if name == "mlx.core":
            raise ImportError("libmlx.so: cannot open shared object file", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, BrokenMlx())  # type: ignore[arg-type]
    EngineHost(socket.socket(fileno=int(sys.argv[1]))).run()
