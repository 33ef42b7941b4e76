"""`DiskTier` is the only door to `cache/disk/`."""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parents[3] / "src" / "everwarm"
DISK = "everwarm.cache.disk"
DOOR = {
    f"{DISK}.tier": {"DiskTier"},
    f"{DISK}.restoring": {"Restoring"},  # as a type: the tree holds what the tier gave
    f"{DISK}.files": {"Files"},  # as a type: measurements pass another file system in
    f"{DISK}.blob": {"Array", "Layer", "StoredValue", "VERSION"},  # plain values: layers spelled
}


def test_nothing_outside_knows_more_of_the_disk_than_its_door() -> None:
    found: dict[str, set[str]] = {}
    for path in SRC.rglob("*.py"):
        if path.is_relative_to(SRC / "cache" / "disk"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(a.name.startswith(DISK) for a in node.names), path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(DISK):
                found.setdefault(node.module or "", set()).update(a.name for a in node.names)
    assert found == DOOR
