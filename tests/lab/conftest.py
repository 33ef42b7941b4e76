"""Servers of benchmarks start forked: hundreds of imports less, the same program."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest
from forked import Forked

from everwarm.cli import child


@pytest.fixture(autouse=True)
def _forked_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    own = SimpleNamespace(**(vars(subprocess) | {"Popen": Forked}))
    monkeypatch.setattr(child, "subprocess", own)
