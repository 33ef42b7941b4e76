"""A server that others can reach has a key, even where nobody set one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import zoo
from serving import Server


def test_an_open_address_gets_a_key_that_is_printed_once(tmp_path: Path, smollm2: Path) -> None:
    model = zoo.save("llama", tmp_path / "tiny", smollm2)
    command = [
        sys.executable,
        "-m",
        "everwarm",
        "serve",
        str(model),
        "--port",
        "0",
        "--no-remember",
    ]
    process = subprocess.Popen(
        [*command, "--host", "0.0.0.0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    said = process.stderr.readline()
    found = re.search(r"ew-[\w-]{32}", said)
    assert found
    server = Server(int(process.stdout.readline().split(":")[-1].split("/")[0]))
    assert server.call("GET", "/v1/models")[0] == 401
    assert server.call("GET", "/v1/models", Authorization=f"Bearer {found[0]}")[0] == 200
    process.terminate()
    _, rest = process.communicate(timeout=30)
    assert found[0] not in rest
    assert process.returncode == 0
