"""The AI SDK against a real server: `python tests/clients/ai_sdk.py CLIENTS_DIR [--install]`.

Not part of the suite, since it wants npm and Node. Tried with ai 7.0.173, @ai-sdk/openai 3.0.141
and @ai-sdk/openai-compatible 3.0.92.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from serving import save_talker, serving

from everwarm.engine.convert import convert
from everwarm.models import ensure_default

PACKAGES = ["ai@7.0.173", "@ai-sdk/openai@3.0.141", "@ai-sdk/openai-compatible@3.0.92"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", type=Path)
    parser.add_argument("--install", action="store_true")
    args = parser.parse_args()
    clients = args.clients.absolute()
    if args.install:
        clients.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-fund", "--no-audit", "--prefix", str(clients)]
        subprocess.run([*command, *PACKAGES], check=True)
    home = os.environ.get("EVERWARM_TEST_HOME") or Path.home() / ".everwarm"
    os.environ |= {"EVERWARM_DISK": "false", "EVERWARM_REMEMBER": "false"}
    smollm2 = ensure_default(Path(home), convert=convert)
    script = Path(__file__).with_suffix(".mjs")
    with tempfile.TemporaryDirectory() as folder:
        model = save_talker(Path(folder), smollm2)
        flags = ("--forced-replies", "--context-length", "2048")
        with serving(model, *flags) as server:
            env = os.environ | {"CLIENTS": str(clients), "EVERWARM_URL": server.root}
            return subprocess.run(["node", "--test", str(script)], env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
