"""Deaths for lack of memory are told from others, and the next engine gets less."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from everwarm.supervisor.death import Death
from everwarm.supervisor.memory_deaths import MemoryDeaths, OomKills, oom_kills

GB = 10**9
TOLD = [
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
    "buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "RuntimeError: [metal::malloc] Resource limit (499000) exceeded.",
    "RuntimeError: [metal::malloc] Attempting to allocate 96636764160 bytes which is greater than "
    "the maximum allowed buffer size of 77309411328 bytes.",
    "RuntimeError: [malloc_or_wait] Unable to allocate 1073741824 bytes.",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "RuntimeError: cudaMallocAsync(&data, size, stream) failed: out of memory",
    "MemoryError",
    "OSError: [Errno 12] Cannot allocate memory",
]
OTHER = [
    "",
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
    "buffer execution failed: Caused GPU Hang Error "
    "(00000003:kIOGPUCommandBufferCallbackErrorHang)",
    "Fatal Python error: Segmentation fault",
    "memory_pressure=warning given_back_mb=1.4 waited_s=0.0 why='told so'",
    "A memory_budget of 8.0 MB holds 120 tokens of this model",
]


def died(code: int | None, words: str = "", hang: str | None = None) -> Death:
    return Death(code=code, words=words, lived_s=60.0, hang=hang)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("words", TOLD)
def test_last_words_that_speak_of_memory_lower_the_budget(words: str, tmp_path: Path) -> None:
    deaths = MemoryDeaths(root=tmp_path)
    deaths.begin()
    assert deaths.note(died(-signal.SIGABRT, f"model=loaded\n{words}\nAbort trap: 6"), 8 * GB)
    assert deaths.budget == 6 * GB
    assert "6,000 MB" in deaths.says and "8,000 MB" in deaths.says


@pytest.mark.parametrize("words", OTHER)
def test_other_last_words_change_nothing(words: str, tmp_path: Path) -> None:
    deaths = MemoryDeaths(root=tmp_path)
    deaths.begin()
    assert not deaths.note(died(-signal.SIGABRT, words), 8 * GB)
    assert deaths.budget is None and deaths.says == ""


def test_a_kill_from_outside_is_no_lack_of_memory_whatever_was_written_before(
    tmp_path: Path,
) -> None:
    """A job that failed for lack of memory long ago leaves words behind, too."""
    deaths = MemoryDeaths(root=tmp_path)
    deaths.begin()
    assert not deaths.note(died(-signal.SIGKILL, TOLD[0]), 8 * GB)
    assert not deaths.note(died(-signal.SIGKILL, TOLD[0], hang="no step for 60 s"), 8 * GB)
    assert not deaths.note(died(0, TOLD[0]), 8 * GB)


def test_the_kernel_tells_whom_it_killed_in_a_group(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/app\n")
    events = tmp_path / "sys/fs/cgroup/app/memory.events"
    write(events, "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n")
    deaths = MemoryDeaths(root=tmp_path)
    deaths.begin()
    assert not deaths.note(died(-signal.SIGKILL), 8 * GB), "the kill before is not this one's"
    write(events, "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert deaths.note(died(-signal.SIGKILL), 8 * GB)
    assert "control group" in deaths.says
    deaths.begin()
    assert not deaths.note(died(-signal.SIGKILL), 6 * GB)


def test_the_kernel_tells_whom_it_killed_anywhere(tmp_path: Path) -> None:
    write(tmp_path / "proc/vmstat", "nr_free_pages 7\noom_kill 3\n")
    deaths = MemoryDeaths(root=tmp_path)
    deaths.begin()
    write(tmp_path / "proc/vmstat", "nr_free_pages 7\noom_kill 4\n")
    assert not deaths.note(died(-signal.SIGABRT), 8 * GB)
    assert deaths.note(died(-signal.SIGKILL), 8 * GB)
    assert "machine" in deaths.says


def test_counters_of_version_1_and_of_a_group_above(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:cpu,memory:/box/one\n0::/\n")
    write(
        tmp_path / "sys/fs/cgroup/memory/box/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
    )
    assert oom_kills(tmp_path) == OomKills(5, 0)


def test_the_budget_is_lowered_again_but_not_below_a_quarter(tmp_path: Path) -> None:
    deaths, budget = MemoryDeaths(root=tmp_path), 8 * GB
    seen = []
    for _ in range(8):
        deaths.begin()
        assert deaths.note(died(-signal.SIGABRT, TOLD[0]), budget)
        assert deaths.budget is not None
        budget = deaths.budget
        seen.append(budget)
    assert seen[:3] == [6 * GB, 4.5 * GB, 3.375 * GB]
    assert seen[-1] == 2 * GB and "8,000 MB" in deaths.says


def test_a_death_while_it_loads_is_no_reason_to_lower_anything(tmp_path: Path) -> None:
    deaths = MemoryDeaths(root=tmp_path)
    deaths.begin()
    assert deaths.note(died(-signal.SIGABRT, TOLD[0]), None)
    assert deaths.budget is None
    assert "while it loaded" in deaths.says and "smaller" in deaths.says
