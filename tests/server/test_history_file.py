"""A server whose history.db is taken away: nothing that was said is lost, and who asks is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import zoo
from held import holding


@pytest.fixture
def model(tmp_path: Path, smollm2: Path) -> Path:
    return zoo.save("llama", tmp_path / "model", smollm2)


def test_a_session_goes_on_and_is_there_after_a_restart(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with holding(model, home, "--no-disk") as client:
        session = client.new()
        client.say(session, "Before")
        for end in ("", "-wal", "-shm"):
            (home / f"history.db{end}").unlink()
        assert client.get("/ready")["history_state"] == "ok"  # it is put back
        (home / "history.db").unlink()
        client.say(session, "After")
        (home / "history.db").unlink()
        (home / "history.db").mkdir()
        status, refused = client.ask(
            "POST", f"/api/sessions/{session}/send", {"text": "Lost otherwise"}
        )
        assert status == 500 and "taken away" in refused["error"]["message"]
        ready = client.get("/ready")
        assert ready["status"] == "ok" and ready["history_state"] == "lost"
        assert "history.db" in ready["history_why"]
        (home / "history.db").rmdir()
    with holding(model, home, "--no-disk") as client:
        said = [m["text"] for m in client.get(f"/api/sessions/{session}")["messages"]]
        assert said[0::2] == ["Before", "After"] and len(said) == 4


def test_a_damaged_file_keeps_the_server_from_starting_and_says_what_to_do(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "history.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    command = [sys.executable, "-m", "everwarm", "serve", str(model), "--port", "0"]
    env = os.environ | {"EVERWARM_HOME": str(tmp_path), "EVERWARM_REMEMBER": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 2
    assert str(tmp_path / "history.db") in done.stderr and "Move it away" in done.stderr
    assert "Traceback" not in done.stderr
