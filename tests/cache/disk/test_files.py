"""Writing past the page cache: the same bytes, whatever their lengths, on any file system."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sample_pieces import MODEL, ROOMY, is_right, keep, segment_layers, sequence

from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.files import SLAB, OsFiles, slabs

LARGE = segment_layers(10, width=30_001)
"""4.8 MB: four slabs and a part of one."""


class Watched(OsFiles):
    """The real files. Notes how each write went, past the cache or through it."""

    def __init__(self) -> None:
        self.past: list[bool] = []

    def write(self, fd: int, views: Sequence[memoryview]) -> None:
        super().write(fd, views)
        self.past.append(bool(fcntl.fcntl(fd, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0)))


class Refusing(OsFiles):
    """A file system that takes the flag and then no write."""

    n_refused = 0

    def pass_cache(self, fd: int) -> None:
        super().pass_cache(fd)
        if getattr(os, "O_DIRECT", 0):
            self.n_refused += 1
            with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                os.write(fd, b"not a block")


def test_bytes_come_in_slabs_in_order() -> None:
    rng = random.Random(1)
    views = [memoryview(rng.randbytes(rng.choice([0, 1, 7, 64, 200]))) for _ in range(50)]
    made = [bytes(s) for s in slabs(views, memoryview(bytearray(64)))]
    assert b"".join(made) == b"".join(views)
    assert {len(s) for s in made[:-1]} == {64} and 0 < len(made[-1]) <= 64


def written(root: Path, files: OsFiles, is_busy: bool) -> None:
    with closing(DiskStore.open(root, limits=ROOMY, files=files)) as store:
        store.is_busy = is_busy
        for n in range(3):
            assert keep(store, sequence(10, n), 0, 10, layers=LARGE), store.stats()
    with closing(DiskStore.open(root, limits=ROOMY)) as store:
        assert store.stats().pieces == 3
        assert all(is_right(store, s) for s in store.pieces(MODEL))


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="Linux's flag")
def test_beside_a_running_reply_writes_pass_the_page_cache(tmp_path: Path) -> None:
    files = Watched()
    written(tmp_path, files, is_busy=True)
    fd = files.create(tmp_path / "probe")
    files.pass_cache(fd)
    can = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)
    files.close(fd)
    ours = files.past[-15:]  # before them, small files of the directory's own
    assert ours == [can, can, can, can, False] * 3, "the end of a file is no whole block"


def test_at_rest_what_is_written_stays_in_the_page_cache(tmp_path: Path) -> None:
    files = Watched()
    written(tmp_path, files, is_busy=False)
    assert len(files.past) >= 15 and not any(files.past)


def test_a_file_system_that_wants_its_cache_gets_the_same_bytes(tmp_path: Path) -> None:
    written(tmp_path, Refusing(), is_busy=True)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no file system in memory here")
def test_a_file_system_in_memory_takes_pieces_too(tmp_path: Path) -> None:
    root = Path("/dev/shm") / f"everwarm-{os.getpid()}-{tmp_path.name}"
    try:
        written(root, OsFiles(), is_busy=True)
    finally:
        for path in sorted(root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        root.rmdir()


@pytest.mark.parametrize("lengths", [(SLAB,), (SLAB, 1), (5,), (SLAB, 4096), (SLAB, SLAB - 1)])
def test_any_length_can_follow_a_whole_slab(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    files = OsFiles()
    data = random.Random(2).randbytes(sum(lengths))
    room = memoryview(mmap.mmap(-1, SLAB))
    fd = files.create(tmp_path / "file")
    for slab in slabs([memoryview(data)], room):
        files.pass_cache(fd)
        files.write(fd, [slab])
    files.sync(fd)
    files.close(fd)
    assert (tmp_path / "file").read_bytes() == data
