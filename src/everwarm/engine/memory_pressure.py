"""Does the machine run short of memory? Asked of macOS by name, and of Linux in its own files.

Linux tells what could be had without swapping, how long tasks waited for memory (pressure stall
information), and what the control groups of this process may take, in either version of them. The
tightest of these counts. macOS tells a level, and that only. No MLX here; any thread. What cannot
be read says nothing: there is no pressure then.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Level = Literal["none", "warning", "critical"]
WARNING_SHARE: Final = 0.05
CRITICAL_SHARE: Final = 0.02
"""Of all memory, or of a group's limit: less free than this is pressure."""
WARNING_STALL: Final = 10.0
CRITICAL_STALL: Final = 40.0
"""Percent of the last ten seconds in which some task waited for memory."""
STALL_SHARE: Final = 0.25
"""With more free than this, it is at some other group's limit that tasks wait: the kernel counts
these for the whole machine."""
_MAC_LEVELS: Final[dict[int, Level]] = {2: "warning", 4: "critical"}
_UNLIMITED: Final = 1 << 60
"""Groups without a limit have one of about this size in version 1."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """`missing_bytes`: what should be given back so that there is enough; None: nobody knows."""

    level: Level = "none"
    missing_bytes: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Supply:
    """Memory that somebody grants: `free` of `total` bytes. `who`, for people."""

    who: str
    free: int
    total: int


def read_pressure(root: Path = Path("/")) -> Pressure:
    """The pressure now. Takes about 0.1 ms. `root`: where /proc and /sys lie."""
    if sys.platform == "darwin":
        level = _sysctl("kern.memorystatus_vm_pressure_level")
        return mac_pressure(level, _sysctl("vm.memory_pressure"))
    return linux_pressure(root)


def mac_pressure(level: int | None, missing_pages: int | None) -> Pressure:
    """From `kern.memorystatus_vm_pressure_level` (1, 2, 4) and `vm.memory_pressure`.

    The latter counts pages that somebody waits for. Alone it is no pressure: it is above 0 for
    moments of any busy machine.
    """
    found = _MAC_LEVELS.get(level or 0, "none")
    if found == "none":
        return Pressure()
    waited_for = f", {missing_pages:,} pages are waited for" if missing_pages else ""
    return Pressure(found, None, f"macOS says {found}{waited_for}")


def linux_pressure(root: Path) -> Pressure:
    """The worst of what the machine and each control group say."""
    worst = Pressure()
    found = list(supplies(root))
    for s in found:
        worst = _worse(worst, _of_supply(s))
    if found and all(s.free > STALL_SHARE * s.total for s in found):
        return worst
    return _worse(worst, _of_stall(_stalled(root)))


def free_bytes(root: Path = Path("/")) -> int | None:
    """What a process on Linux could still take; None where that is not told."""
    return min((s.free for s in supplies(root)), default=None)


def supplies(root: Path) -> Iterator[Supply]:
    """The machine's memory, and that of each control group above this process with a limit."""
    rows = _table(root / "proc/meminfo")
    if "MemAvailable" in rows and "MemTotal" in rows:
        yield Supply("the machine", rows["MemAvailable"] * 1024, rows["MemTotal"] * 1024)
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from _groups(root / "sys/fs/cgroup", path, "memory.max", "memory.current")
            yield from _groups(root / "sys/fs/cgroup/unified", path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            yield from _groups(root / "sys/fs/cgroup/memory", path, *names)


def _groups(mount: Path, path: str, limit: str, usage: str) -> Iterator[Supply]:
    """Groups from this process's own up to the top. Inside a container the mount is its own."""
    parts = [p for p in path.split("/") if p and p != ".."]
    for n in range(len(parts), -1, -1):
        group = mount.joinpath(*parts[:n])
        most, used = _number(group / limit), _number(group / usage)
        if most is not None and used is not None and 0 < most < _UNLIMITED:
            # Files that were read lately and nobody changed are given back without a wait.
            stat = _table(group / "memory.stat")
            used -= stat.get("total_inactive_file", stat.get("inactive_file", 0))
            yield Supply("the control group", max(most - max(used, 0), 0), most)


def _of_supply(s: Supply) -> Pressure:
    share = s.free / s.total if s.total else 1.0
    if share >= WARNING_SHARE:
        return Pressure()
    level: Level = "critical" if share < CRITICAL_SHARE else "warning"
    # Twice the threshold: otherwise the next job would find the same.
    missing = int(2 * WARNING_SHARE * s.total) - s.free
    why = f"{s.who} has {s.free / 1e6:,.0f} MB of {s.total / 1e6:,.0f} MB left"
    return Pressure(level, missing, why)


def _of_stall(percent: float) -> Pressure:
    if percent < WARNING_STALL:
        return Pressure()
    level: Level = "critical" if percent >= CRITICAL_STALL else "warning"
    return Pressure(level, None, f"tasks waited for memory {percent:.0f}% of the last 10 s")


def _worse(a: Pressure, b: Pressure) -> Pressure:
    rank: dict[Level, int] = {"none": 0, "warning": 1, "critical": 2}
    if rank[a.level] != rank[b.level]:
        return a if rank[a.level] > rank[b.level] else b
    return b if (b.missing_bytes or 0) > (a.missing_bytes or 0) else a


def _stalled(root: Path) -> float:
    found = re.search(r"some avg10=([0-9.]+)", _read(root / "proc/pressure/memory"))
    return float(found[1]) if found else 0.0


def _table(path: Path) -> dict[str, int]:
    """Lines such as `MemTotal:   1024 kB` or `inactive_file 4096`."""
    rows = (line.replace(":", " ").split() for line in _read(path).splitlines())
    return {r[0]: int(r[1]) for r in rows if len(r) > 1 and r[1].isdecimal()}


def _number(path: Path) -> int | None:
    """The one number in a file; None where there is none, such as `max`."""
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _sysctl(name: str) -> int | None:
    """A number that macOS gives by name; None where it does not."""
    value = ctypes.c_int64(0)
    size = ctypes.c_size_t(ctypes.sizeof(value))
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    except (OSError, AttributeError):
        return None
    return None if failed else int(value.value)
