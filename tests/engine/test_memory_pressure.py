"""What the machine says of its memory: files as Linux writes them, and macOS's levels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from everwarm.engine.memory_pressure import (
    Pressure,
    free_bytes,
    linux_pressure,
    mac_pressure,
    read_pressure,
)

GB = 10**9


def machine(root: Path, *, available: int = 8 * GB, total: int = 16 * GB, stall: float = 0) -> Path:
    rows = {"MemTotal": total, "MemAvailable": available}
    table = "".join(f"{name}:   {nbytes // 1024} kB\n" for name, nbytes in rows.items())
    write(root / "proc/meminfo", f"{table}HugePages_Total:       0\n")
    rest = "avg60=0.00 avg300=0.00 total=0"
    write(root / "proc/pressure/memory", f"some avg10={stall:.2f} {rest}\nfull avg10=0.00 {rest}\n")
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def version_2(root: Path, name: str, *, limit: str, used: int, files: int = 0) -> None:
    group = root / "sys/fs/cgroup" / name
    write(group / "memory.max", f"{limit}\n")
    write(group / "memory.current", f"{used}\n")
    write(group / "memory.stat", f"anon {used - files}\ninactive_file {files}\nactive_file 0\n")


def test_a_machine_with_room_has_no_pressure(tmp_path: Path) -> None:
    assert linux_pressure(machine(tmp_path)) == Pressure()


def test_little_memory_left_is_pressure_and_says_how_much_is_missing(tmp_path: Path) -> None:
    found = linux_pressure(machine(tmp_path, available=int(0.6 * GB)))
    assert found.level == "warning"
    assert found.missing_bytes == pytest.approx(1.0 * GB, rel=0.01)
    assert "600 MB of 16,000 MB" in found.why
    assert linux_pressure(machine(tmp_path, available=int(0.2 * GB))).level == "critical"


def test_waiting_for_memory_is_pressure(tmp_path: Path) -> None:
    left = 3 * GB
    assert linux_pressure(machine(tmp_path, available=left, stall=9.9)).level == "none"
    found = linux_pressure(machine(tmp_path, available=left, stall=12))
    assert (found.level, found.missing_bytes) == ("warning", None)
    assert linux_pressure(machine(tmp_path, available=left, stall=55)).level == "critical"


def test_waits_at_the_limit_of_another_group_are_no_pressure(tmp_path: Path) -> None:
    assert linux_pressure(machine(tmp_path, available=8 * GB, stall=80)) == Pressure()


def test_the_limit_of_a_group_above_counts(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "0::/pod/app\n")
    version_2(tmp_path, "pod", limit=str(4 * GB), used=int(3.9 * GB))
    version_2(tmp_path, "pod/app", limit="max", used=1 * GB)
    found = linux_pressure(tmp_path)
    assert (found.level, found.missing_bytes) == ("warning", pytest.approx(0.3 * GB, rel=0.01))
    assert free_bytes(tmp_path) == pytest.approx(0.1 * GB, rel=0.01)


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "0::/../../docker/abc\n")
    version_2(tmp_path, ".", limit=str(2 * GB), used=int(1.99 * GB))
    assert linux_pressure(tmp_path).level == "critical"


def test_files_that_can_be_read_again_are_no_pressure(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "0::/app\n")
    version_2(tmp_path, "app", limit=str(4 * GB), used=int(3.99 * GB), files=2 * GB)
    assert linux_pressure(tmp_path).level == "none"
    version_2(tmp_path, "app", limit=str(4 * GB), used=int(3.99 * GB), files=0)
    assert linux_pressure(tmp_path).level == "critical"


def test_groups_of_version_1(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/box/one\n0::/\n")
    group = tmp_path / "sys/fs/cgroup/memory/box/one"
    write(group / "memory.limit_in_bytes", f"{2 * GB}\n")
    write(group / "memory.usage_in_bytes", f"{int(1.95 * GB)}\n")
    write(group / "memory.stat", "inactive_file 0\ntotal_inactive_file 0\n")
    write(group.parent / "memory.limit_in_bytes", "9223372036854771712\n")
    write(group.parent / "memory.usage_in_bytes", "9223372036854771000\n")
    found = linux_pressure(tmp_path)
    assert found.level == "warning" and "control group" in found.why


@pytest.mark.parametrize(
    "text", ["", "garbage", "some avg10=x", "MemTotal: many kB", "\x00\xff", "-1"]
)
def test_what_cannot_be_read_is_no_pressure(tmp_path: Path, text: str) -> None:
    for name in ("proc/meminfo", "proc/pressure/memory", "proc/self/cgroup"):
        write(tmp_path / name, text)
    write(tmp_path / "sys/fs/cgroup/memory.max", text)
    assert linux_pressure(tmp_path) == Pressure()
    assert free_bytes(tmp_path) is None


def test_levels_of_macos() -> None:
    assert mac_pressure(1, 50) == Pressure()
    assert mac_pressure(None, None) == Pressure()
    assert mac_pressure(2, 0).level == "warning"
    found = mac_pressure(4, 1200)
    assert found.level == "critical" and "1,200 pages" in found.why


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_tells_what_is_free() -> None:
    free = free_bytes()
    assert free is not None and free > 0
    assert read_pressure().level in ("none", "warning", "critical")
