"""How a sequence comes back from disk, a part at a time. Engine thread only."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Final

from everwarm.cache.disk.disk_store import DiskStore
from everwarm.cache.disk.reader import Loaded
from everwarm.cache.restore import RestorePlan
from everwarm.cache.sequence import Sequence
from everwarm.cache.store import OnDisk, Piece
from everwarm.cache.tree import Segment
from everwarm.errors import CacheFault
from everwarm.tokens import Tokens

PATIENCE_S: Final = 30.0
"""When no read has brought a byte for so long, the tokens are read again instead."""
MOST_AT_ONCE: Final = 64 << 20
"""Bytes moved between two steps of other jobs, either way."""


def most_nbytes(chosen: RestorePlan) -> int:
    """The most bytes of a plan's files that are read and not yet taken over at any one time.

    Beside the files that are read ahead the one is counted whose rows go to several segments, and
    the checkpoint, which is there twice while it is put back.
    """
    sizes = sorted({f.file_id: f.nbytes for f in chosen.files}.values(), reverse=True)
    checkpoint = chosen.checkpoint.nbytes if isinstance(chosen.checkpoint, OnDisk) else 0
    return sum(sizes[: chosen.ahead + 1]) + checkpoint


class Lost(CacheFault):
    """A file that cannot be restored from."""

    def __init__(self, message: str, file_id: str) -> None:
        super().__init__(message)
        self.file_id = file_id


class Restoring:
    """A sequence on its way back. `step` takes what has arrived; True: it is whole.

    `made`: the checkpoint that was read, now in memory.
    """

    def __init__(
        self, store: DiskStore, chosen: RestorePlan, sequence: Sequence, tokens: Tokens[int]
    ) -> None:
        self._store, self._sequence, self._tokens = store, sequence, tokens
        self.at, self._ahead = chosen.at, chosen.ahead
        self.most_nbytes = most_nbytes(chosen)
        self._left = deque(chosen.segments)
        self._checkpoint = chosen.checkpoint
        self._wanted = deque(dict.fromkeys(f.file_id for f in chosen.files))
        self._coming: dict[str, Future[Loaded]] = {}
        self.made: Piece | None = None
        self._fetch()

    @property
    def pieces(self) -> list[Piece]:
        """Pieces in memory that are still needed."""
        held = [*(s.piece for s in self._left), self._checkpoint]
        return [p for p in held if p is not None and not isinstance(p, OnDisk)]

    def step(self) -> bool:
        """Raises Lost where a file is gone, damaged or not what it should be."""
        taken = 0
        while self._left and taken < MOST_AT_ONCE:
            s = self._left[0]
            if isinstance(s.piece, OnDisk):
                loaded = self._arrived(s.piece)
                if loaded is None:
                    return False
                self._put_rows(s, s.piece, loaded)
            else:
                tokens = self._tokens[s.start : s.end]
                self._sequence.extend(s.piece, s.start, s.end, s.piece_start, tokens)
            taken += s.piece.nbytes
            self._left.popleft()
        return not self._left and self._put_back()

    def _put_rows(self, s: Segment, piece: OnDisk, loaded: Loaded) -> None:
        blob, buffers = loaded
        r = blob.record
        if self._tokens[r.start : s.end] != r.tokens[: s.end - r.start]:
            raise Lost("the file holds other tokens", piece.file_id)
        tokens = self._tokens[s.start : s.end]
        try:
            self._sequence.rows_in(
                blob.layers, buffers, s.start, s.end, r.start, len(self._tokens), tokens
            )
        except (ValueError, TypeError, AssertionError) as e:
            raise Lost(f"the file does not fit this model: {e}", piece.file_id) from None
        if not self._left or all(x.piece != piece for x in list(self._left)[1:]):
            self._coming.pop(piece.file_id, None)

    def _put_back(self) -> bool:
        if not isinstance(self._checkpoint, OnDisk):
            self._sequence.put_back(self._checkpoint)
            return True
        loaded = self._arrived(self._checkpoint)
        if loaded is None:
            return False
        file_id = self._checkpoint.file_id
        if loaded[0].record.end != self.at:
            raise Lost("the file is of another position", file_id)
        try:
            held: Piece = self._sequence.checkpoint_in(loaded[0].layers, loaded[1])
            self._sequence.put_back(held)
        except (ValueError, TypeError, AssertionError) as e:
            raise Lost(f"the file does not fit this model: {e}", file_id) from None
        self._coming.pop(file_id, None)
        self._checkpoint = None
        self.made = held
        return True

    def _fetch(self) -> None:
        while self._wanted and len(self._coming) < self._ahead:
            file_id = self._wanted.popleft()
            self._coming[file_id] = self._store.load(file_id)

    def _arrived(self, piece: OnDisk) -> Loaded | None:
        self._fetch()
        future = self._coming.get(piece.file_id)
        if future is None:  # more files than may come at once: it is its turn now
            future = self._coming[piece.file_id] = self._store.load(piece.file_id)
        if not future.done():
            if self._store.read_stalled_s > PATIENCE_S:
                raise Lost("the disk has not answered for too long", piece.file_id)
            return None
        # Not `result()`: what it raises would hold this call, and with it the whole state, alive.
        if (error := future.exception()) is not None:
            raise Lost(f"{type(error).__name__}: {error}", piece.file_id)
        return future.result()
