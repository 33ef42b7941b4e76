"""The command line: quick help, one-sentence errors, and flags that are settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from everwarm import __version__
from everwarm.cli import app
from everwarm.config import FIELDS, flag_of

HEAVY = ("mlx", "mlx_lm", "fastapi", "uvicorn", "transformers", "pydantic", "httpx2")


def everwarm(*args: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "everwarm", *args]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EVERWARM_")}
    clean |= {"EVERWARM_HOME": str(home), "HF_HOME": str(home / "hf"), **env}
    return subprocess.run(
        command, env=clean, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom everwarm.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "demo" in done.stdout
    assert done.stderr.strip() == "[]"


def test_the_version_is_printed(tmp_path: Path) -> None:
    done = everwarm("--version", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"everwarm {__version__}\n")


def test_a_bad_setting_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    done = everwarm("serve", "--port", "70000", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "everwarm: --port must be a whole number from 0 to 65535.\n"


def test_a_missing_model_directory_is_exit_code_2(tmp_path: Path) -> None:
    done = everwarm("serve", str(tmp_path / "none"), "--port", "0", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("everwarm: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["ps"], ["chat"]])
def test_no_server_is_one_sentence_and_exit_code_1(command: list[str], tmp_path: Path) -> None:
    done = everwarm(*command, "--url", "http://127.0.0.1:9", home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("everwarm: No server answers at http://127.0.0.1:9;")


def test_ls_finds_models_in_the_home_and_in_the_hub_cache(tmp_path: Path) -> None:
    own = tmp_path / "models" / "small"
    hub = tmp_path / "hf" / "hub" / "models--a--b"
    snapshot = hub / "snapshots" / ("0" * 40)
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("0" * 40)
    for folder in (own, snapshot):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "model.safetensors").write_bytes(b"x" * 10)
    done = everwarm("ls", "--json", home=tmp_path)
    assert [m["name"] for m in json.loads(done.stdout)] == [str(own), "a/b"]


def test_serve_has_a_flag_for_each_setting_that_names_one() -> None:
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    offered = {o for p in serve.params for o in (*p.opts, *p.secondary_opts)}
    named = {word for name in FIELDS for word in flag_of(name).split("/")} - {"", "MODEL"}
    assert {o for o in offered if o.startswith("-")} == named | {"--config"}
    assert {"--port", "--no-disk", "--strict"} < named


def test_every_flag_of_serve_reaches_its_setting(tmp_path: Path) -> None:
    """All but the last are good, so that the last one is what is refused."""
    good = ["--no-cache", "--memory-budget", "8GB", "--prefill-share", "0.25", "--strict"]
    done = everwarm("serve", "some/model", *good, "--kv-group-size", "48", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "everwarm: --kv-group-size must be 32, 64 or 128.\n"
