"""The examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import zoo
from held import holding

ROOT = Path(__file__).parent.parent.parent


def test_a_session_is_branched_and_its_branches_compared(tmp_path: Path, smollm2: Path) -> None:
    script = ROOT / "examples" / "sessions.py"
    assert script.read_text().count("\n") <= 40
    model = zoo.save("llama", tmp_path / "model", smollm2)
    with holding(model, tmp_path / "home", "--no-disk") as client:
        done = subprocess.run(
            [sys.executable, str(script), client.url], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert client.get("/api/sessions")["sessions"] == []
        turns = client.get("/api/turns")["turns"]
    warm = re.findall(r"(\d+) tokens were warm, (\d+) were read", done.stdout)
    assert len(warm) == 3
    assert all(int(read) < int(cached) for cached, read in warm[1:])
    assert "\nfood: " in done.stdout and "\nart: " in done.stdout
    assert turns == [], "the turns of a deleted session are not shown"
