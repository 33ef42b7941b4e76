"""`everwarm serve`, with a model that is slow at reading: for slow.py.

What is slow is the model itself, a third party to everwarm. SLOW_S: seconds in all, SLOW_STEP_S: in
one step of prefill.
"""

from __future__ import annotations

import os
import time
from typing import Any

import mlx_lm.utils

from everwarm.cli import main

left = [float(os.environ["SLOW_S"])]
load = mlx_lm.utils.load_model


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


if __name__ == "__main__":
    mlx_lm.utils.load_model = slow_load
    main()
