"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from everwarm.engine.convert import convert
from everwarm.models import ensure_default

pytest_plugins = ["codec_fixtures"]

# Servers that tests start are cold, and leave the user's home alone, unless a test says otherwise.
os.environ |= {
    "EVERWARM_DISK": "false",
    "EVERWARM_REMEMBER": "false",
    "EVERWARM_RECORD": "false",
}


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The default model's directory, fetched once and kept between runs."""
    home = os.environ.get("EVERWARM_TEST_HOME") or Path.home() / ".everwarm"
    return ensure_default(Path(home), convert=convert)
