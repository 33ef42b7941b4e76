"""An engine process on a machine without MLX: `python -m engine_without_mlx FD`."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from types import ModuleType

from everwarm.engine.process import EngineHost


class NoMlx:
    """Finds that MLX is not there."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> None:
        if name.split(".")[0] in ("mlx", "mlx_lm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, NoMlx())  # type: ignore[arg-type]
    EngineHost(socket.socket(fileno=int(sys.argv[1]))).run()
