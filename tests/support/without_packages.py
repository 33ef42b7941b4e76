"""Pythons in which packages are as if not installed, although they are: nothing is uninstalled."""

from __future__ import annotations

import os
from pathlib import Path

Hidden = tuple[str, ...]
_HIDE = """
import sys

class Hiding:
    '''Finds what the finders of this Python find, but for some packages.'''

    def __init__(self):
        self.finders = sys.meta_path[:]

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            return None
        found = (f.find_spec(name, path, target) for f in self.finders if hasattr(f, "find_spec"))
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, context):
        for finder in self.finders:
            yield from getattr(finder, "find_distributions", lambda context: ())(context)

sys.meta_path[:] = [Hiding()]
"""


def hiding(hidden: Hidden) -> str:
    """Code to be run first."""
    return _HIDE.format(hidden=hidden)


def environment_without(hidden: Hidden, folder: Path) -> dict[str, str]:
    """Variables under which each Python hides these packages, its children as well.

    `folder` gets a `sitecustomize.py`, which Python runs at its start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # What `.pth` files put in place (editable installs) comes before: it has to stay.
    (folder / "sitecustomize.py").write_text(hiding(hidden))
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"}
