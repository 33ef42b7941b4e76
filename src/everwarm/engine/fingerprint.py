"""Which model wrote a piece of cache? 32 bytes that change with whatever changes its numbers.

Config (with quantisation and RoPE settings), every weight file's bytes, adapters, the layout of the
caches and the version of mlx-lm that decides it. Not the template and not the tokenizer: token ids
decide. Not the directory's name.

The Hub's files carry their SHA-256 in the name of what they link to; others are summed once and
remembered by inode, size, time and a sample, so that a start does not read 200 GB. Not by the
device's number, which systems give anew when a disk is attached or the computer starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import mlx_lm
from mlx_lm.models.cache import make_prompt_cache

from everwarm.cache.disk.blob import VERSION
from everwarm.engine import layers

_WEIGHTS: Final = ("*.safetensors", "*.npz")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_BLOCKS: Final = 16
_BLOCK: Final = 2**14
_PART: Final = 16 * 2**20
HashProgress = Callable[[str, int, int], None]


def fingerprint(
    model: Any,
    config: dict[str, Any],
    directory: Path,
    remembered: Path,
    progress: HashProgress = lambda what, done, total: None,
) -> bytes:
    """The fingerprint of a loaded model. `remembered`: a JSON file of sums already made.

    `progress(file, bytes, of)` is called while a weight file is summed.
    """
    h = hashlib.sha256(b"everwarm 1\0")
    form = {k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version")}
    for part in (
        json.dumps(form, sort_keys=True, default=str),
        json.dumps(_layout(model)),
        _minor(mlx_lm.__version__),
        str(VERSION),
    ):
        h.update(len(part).to_bytes(8, "little") + part.encode())
    sums = _FileSums(remembered)
    for path in sorted(p for pattern in _WEIGHTS for p in directory.rglob(pattern)):
        name = str(path.relative_to(directory))
        h.update(f"{name}\0{path.stat().st_size}\0{sums.of(path, progress)}\0".encode())
    sums.save()
    return h.digest()


def _layout(model: Any) -> list[str]:
    """Each layer's cache class, what bounds it, and how its rows are spelled."""
    return [
        f"{type(c).__name__}:{getattr(c, 'max_size', '')}/{getattr(c, 'keep', '')}"
        + (f"/{c.bits} bits by {c.group_size}" if hasattr(c, "bits") else "")
        + (f"/{len(c.cache)} arrays" if isinstance(getattr(c, "cache", None), list) else "")
        for c in layers.leaves(make_prompt_cache(model))
    ]


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


class _FileSums:
    """SHA-256 of weight files."""

    def __init__(self, remembered: Path) -> None:
        self._path = remembered
        self._known: dict[str, str] = {}
        self._is_new = False
        try:
            known = json.loads(remembered.read_text())
            self._known = {str(k): str(v) for k, v in known.items()}
        except (OSError, ValueError, AttributeError):
            pass  # only a memory: everything can be summed again

    def of(self, path: Path, progress: HashProgress) -> str:
        real = path.resolve()
        if path.is_symlink() and _SHA256.fullmatch(real.name):
            return real.name
        stat = real.stat()
        key = f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{_sample(real, stat.st_size)}"
        if key not in self._known:
            self._known[key] = _sum(real, stat.st_size, progress)
            self._is_new = True
        return self._known[key]

    def save(self) -> None:
        if not self._is_new:
            return
        part = self._path.with_suffix(f".{os.getpid()}")
        try:
            part.write_text(json.dumps(self._known))
            part.replace(self._path)
        except OSError:
            part.unlink(missing_ok=True)


def _sample(path: Path, size: int) -> str:
    """A hash of blocks from all over a file: other weights differ in them."""
    h = hashlib.sha256()
    with path.open("rb") as f:
        for n in range(_BLOCKS):
            f.seek(n * max(0, size - _BLOCK) // (_BLOCKS - 1))
            h.update(f.read(_BLOCK))
    return h.hexdigest()[:32]


def _sum(path: Path, size: int, progress: HashProgress) -> str:
    h, done = hashlib.sha256(), 0
    with path.open("rb") as f:
        while part := f.read(_PART):
            h.update(part)
            done += len(part)
            progress(path.name, done, size)
    return h.hexdigest()
