"""What upstream does is mended before mlx is loaded."""

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


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
import everwarm.engine.model
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [(256, 1024, (1024, 1024)), (1024, 1024, (1024, 1024)), (4000, 6000, (4000, 6000))],
)
def test_mlx_lm_neither_fails_on_a_low_limit_of_files_nor_lowers_a_high_one(
    soft: int, hard: int, after: tuple[int, int]
) -> None:
    code = LIMITED.format(soft=soft, hard=hard)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == str(after), run.stderr
