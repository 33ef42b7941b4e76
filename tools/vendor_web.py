"""Fetch the pages' libraries anew, as `vendor.json` lists them, and write their hashes into it.

    python tools/vendor_web.py

Needs npm. To move to another version, change it in `vendor.json` and run this; then run
`pytest tests/chat/web` and look at what changed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parent.parent / "src/everwarm/chat/web/vendor"


def fetch(name: str, version: str, folder: Path) -> tarfile.TarFile:
    """The npm package as it was published."""
    command = ["npm", "pack", f"{name}@{version}", "--silent"]
    out = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return tarfile.open(folder / out.stdout.split()[-1])


def take(package: dict[str, Any], archive: tarfile.TarFile) -> None:
    """Write one package's files. Bare imports become paths, which browsers can follow."""
    for file in package["files"]:
        member = archive.extractfile("package/" + file["from"])
        assert member is not None
        data = member.read()
        file["published_sha256"] = hashlib.sha256(data).hexdigest()
        for bare, path in file.get("imports", {}).items():
            data = data.replace(f'from"{bare}"'.encode(), f'from"{path}"'.encode())
            data = data.replace(f"from '{bare}'".encode(), f"from '{path}'".encode())
        target = VENDOR / file["to"]
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        file["sha256"] = hashlib.sha256(data).hexdigest()


def main() -> None:
    """Fetch all."""
    listed = json.loads((VENDOR / "vendor.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        for package in listed["packages"]:
            with fetch(package["name"], package["version"], Path(folder)) as archive:
                take(package, archive)
    (VENDOR / "vendor.json").write_text(json.dumps(listed, indent=1) + "\n")


if __name__ == "__main__":
    main()
