"""Upstream shims.

`keep_file_limits` dies when importing mlx_lm no longer sets RLIMIT_NOFILE to (2048, 4096): that
fails where the hard limit is lower, and takes descriptors away where it is higher.

`enable_fast_blas` dies when the mlx-cpu wheel links an optimised BLAS. Until then it links the
netlib reference BLAS; symbols of a library loaded RTLD_GLOBAL before mlx take its place.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

_setrlimit = resource.setrlimit
_PARTS = ("libquadmath", "libgfortran", "libgomp", "libopenblas")


def enable_fast_blas() -> str:
    """Put a fast BLAS before mlx's own; answers with its name, or `builtin`.

    EVERWARM_BLAS=reference leaves mlx's own in place.
    """
    if sys.platform != "linux" or os.environ.get("EVERWARM_BLAS") == "reference":
        return "builtin"
    if "mlx.core" in sys.modules:
        return "builtin"
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if platform.machine() == "x86_64" and _load(_bundled()):
        return "openblas (faiss-cpu)"
    if _load(["libopenblas.so.0"]):
        return "openblas (system)"
    return "builtin"


def keep_file_limits() -> None:
    """Let nobody in this process lower the limits on open files, or fail to raise them."""
    resource.setrlimit = _never_fewer_files


def _never_fewer_files(which: int, limits: tuple[int, int]) -> None:
    if which == resource.RLIMIT_NOFILE:
        soft, hard = resource.getrlimit(which)
        highest = sys.maxsize if hard == resource.RLIM_INFINITY else hard
        if soft != resource.RLIM_INFINITY:
            soft = max(soft, min(limits[0], highest))
        limits = (soft, hard)
    _setrlimit(which, limits)


def _bundled() -> list[str]:
    """The libraries in faiss-cpu's wheel, in the order in which they need each other."""
    try:
        files = metadata.files("faiss-cpu") or []
    except metadata.PackageNotFoundError:
        return []
    paths = [Path(str(f.locate())) for f in files if ".so" in f.name]
    found = [next((str(p) for p in paths if p.name.startswith(part)), None) for part in _PARTS]
    return [p for p in found if p is not None]


def _load(names: list[str]) -> bool:
    library: ctypes.CDLL | None = None
    try:
        for name in names:
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return library is not None and hasattr(library, "cblas_sgemm")
