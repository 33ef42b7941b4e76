"""A short run of the parser's fuzzer. The long one is by hand: see `fuzz_blob.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

N_RUNS = 20_000


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel here")
def test_thousands_of_grown_inputs_find_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fuzz_blob.py")), f"-runs={N_RUNS}"],
        cwd=tmp_path,  # a finding is written there
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {N_RUNS} runs" in done.stderr
