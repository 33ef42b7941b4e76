"""The BLAS is chosen before mlx is loaded."""

import os
import subprocess
import sys

import pytest

CODE = "import everwarm.engine as e, sys; assert 'mlx.core' not in sys.modules; print(e.BLAS)"


def blas(**env: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_reference_leaves_the_built_in_blas() -> None:
    assert blas(EVERWARM_BLAS="reference") == "builtin"


@pytest.mark.skipif(sys.platform != "linux", reason="only mlx's Linux wheel needs it")
def test_linux_gets_openblas() -> None:
    assert blas(EVERWARM_BLAS="").startswith("openblas")
