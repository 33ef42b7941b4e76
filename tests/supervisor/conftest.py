"""A tiny model, and the way for engine processes to the modules of `tests/support`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zoo

os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent.parent / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    path = tmp_path_factory.mktemp("models") / "llama"
    zoo.save("llama", path, smollm2)
    return path
