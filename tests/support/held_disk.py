"""A disk whose every read and write waits until the test says how it ends.

What `DiskStore` promises, in memory: the index is the real `Shelf`, pieces are bytes. A write may
end late or fail, a read may end late, find its file gone, or find it torn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from everwarm.cache.disk import blob
from everwarm.cache.disk.blob import Blob, Layer, PieceRecord
from everwarm.cache.disk.health import DiskStats
from everwarm.cache.disk.index import Stored
from everwarm.cache.disk.join import Joined
from everwarm.cache.disk.shelf import Shelf
from everwarm.errors import CacheFault
from everwarm.job import Path

End = Literal["well", "fails", "torn"]
_ids = count(1)


@dataclass(eq=False)
class Held:
    """An operation on its way. `carry_out` ends it."""

    kind: Literal["read", "write"]
    carry_out: Callable[[End], None]


class HeldDisk:
    """Pieces of one model. `held` are the operations under way, in the order of the calls."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.held: list[Held] = []
        self.is_busy = False
        self._pieces: dict[str, tuple[PieceRecord, tuple[Layer, ...], list[bytes]]] = {}

    def answer(self, pick: int, end: End) -> str:
        """Let one operation come to its end; what it was."""
        operation = self.held.pop(pick % len(self.held))
        operation.carry_out(end)
        return f"{operation.kind} {end}"

    def power_off(self) -> None:
        """What was not durable is lost, and nobody waits any more."""
        self.held.clear()

    read_stalled_s = write_stalled_s = 0.0
    """For how long what is under way has not moved; a test may say so."""

    def pieces(self, fingerprint: bytes, wait_s: float | None = None) -> list[Stored]:
        return self.shelf.pieces(fingerprint)

    def write(
        self, record: PieceRecord, layers: tuple[Layer, ...], buffers: Sequence[Any]
    ) -> Future[str | None]:
        blob.check_names(record, layers)
        views = blob.flat(blob.arrays_of(layers), buffers)
        done: Future[str | None] = Future()

        def carry_out(end: End) -> None:
            if end != "well":
                done.set_result(None)
                return
            found = self.shelf.same(record)
            done.set_result(found or self._put(record, layers, [bytes(v) for v in views]))

        self.held.append(Held("write", carry_out))
        return done

    def _put(self, record: PieceRecord, layers: tuple[Layer, ...], data: list[bytes]) -> str | None:
        if not self.shelf.stands_on(record)[0]:
            return None
        file_id = f"{next(_ids):032x}"
        nbytes = sum(map(len, data))
        assert self.shelf.add(Stored(file_id, record, nbytes)), "a record that is not what it says"
        self._pieces[file_id] = (record, layers, data)
        return file_id

    def load(self, file_id: str) -> Future[tuple[Blob, list[bytearray]]]:
        done: Future[tuple[Blob, list[bytearray]]] = Future()

        def carry_out(end: End) -> None:
            if file_id not in self._pieces or end == "fails":
                done.set_exception(CacheFault("the file is gone"))
            elif end == "torn":
                self._remove(file_id)
                done.set_exception(CacheFault("a checksum is wrong"))
            else:
                record, layers, data = self._pieces[file_id]
                arrays = tuple(blob.arrays_of(layers))
                head = Blob(file_id, record, layers, arrays, (), 0, sum(map(len, data)))
                done.set_result((head, [bytearray(d) for d in data]))

        self.held.append(Held("read", carry_out))
        return done

    def loses(self, pick: int) -> None:
        """Somebody deletes a file."""
        if self._pieces:
            self._remove(sorted(self._pieces)[pick % len(self._pieces)])

    def _remove(self, file_id: str) -> None:
        del self._pieces[file_id]
        self.shelf.drop(file_id)

    def touch(self, file_ids: Iterable[str]) -> None:
        pass

    def pin(self, file_ids: Iterable[str], is_pinned: bool) -> None:
        pass

    delete_doubles = touch

    def delete(self, file_ids: Iterable[str]) -> Future[frozenset[str]]:
        return _done(self._take_off(file_ids))

    def delete_paths(self, paths: Iterable[Path]) -> Future[frozenset[str]]:
        ends = [x for p in paths for x in self.shelf.on_path(p)]
        return _done(self._take_off(self.shelf.with_all_above(ends)))

    def _take_off(self, file_ids: Iterable[str]) -> frozenset[str]:
        gone = frozenset(x for x in file_ids if x in self._pieces)
        for file_id in gone:
            self._remove(file_id)
        return gone

    def join(self) -> Future[Joined | None]:
        return _done(None)

    def stats(self) -> DiskStats:
        n = self.shelf.nbytes
        pieces, most = len(self.shelf), 1 << 40
        return DiskStats("ok", "", pieces, n, most, 0, 0, most, *[0] * 8)  # type: ignore[arg-type]

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def close(self, wait_s: float | None = None) -> bool:
        return True


def _done(value: Any) -> Future[Any]:
    done: Future[Any] = Future()
    done.set_result(value)
    return done
