"""How a state comes back from disk, a part at a time. Engine thread only."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Final

from everwarm.cache.disk import DiskStore
from everwarm.cache.reader import Loaded
from everwarm.cache.restore import Plan
from everwarm.cache.store import OnDisk, Piece
from everwarm.cache.tree import Holder, Segment
from everwarm.errors import CacheFault
from everwarm.tokens import Tokens

AHEAD: Final = 4
"""Files asked for before they are needed."""
MOST_AT_ONCE: Final = 64 << 20
"""Bytes moved between two steps of other jobs, either way."""


class Lost(CacheFault):
    """A file that cannot be restored from."""

    def __init__(self, message: str, file_id: str) -> None:
        super().__init__(message)
        self.file_id = file_id


class Restoring:
    """A state on its way back. `step` takes what has arrived; True: it is whole.

    `made`: the checkpoint that was read, now in memory.
    """

    def __init__(self, store: DiskStore, chosen: Plan, holder: Holder, tokens: Tokens[int]) -> None:
        self._store, self._holder, self._tokens = store, holder, tokens
        self.at = chosen.at
        self._left = deque(chosen.segments)
        self._checkpoint = chosen.checkpoint
        self._room = len(tokens) + max(512, len(tokens) // 16)
        self._wanted = deque(dict.fromkeys(f.file_id for f in chosen.files))
        self._coming: dict[str, Future[Loaded]] = {}
        self.made: Piece | None = None
        self._fetch()

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
                self._holder.live.extend(s.piece, s.start, s.end, s.piece_start)
            taken += s.piece.nbytes
            self._left.popleft()
            self._holder.tokens = self._tokens[: s.end]
        return not self._left and self._put_back()

    def _put_rows(self, s: Segment, piece: OnDisk, loaded: Loaded) -> None:
        blob, buffers = loaded
        r = blob.record
        if self._tokens[r.start : s.end] != r.tokens[: s.end - r.start]:
            raise Lost("the file holds other tokens", piece.file_id)
        live = self._holder.live
        try:
            live.rows_in(blob.layers, buffers, s.start, s.end, r.start, self._room)
        except (ValueError, TypeError, AssertionError) as e:
            raise Lost(f"the file does not fit this model: {e}", piece.file_id) from None
        if not self._left or all(x.piece != piece for x in list(self._left)[1:]):
            self._coming.pop(piece.file_id, None)

    def _put_back(self) -> bool:
        if not isinstance(self._checkpoint, OnDisk):
            if self._checkpoint is not None:
                self._holder.live.put_back(self._checkpoint)
            return True
        loaded = self._arrived(self._checkpoint)
        if loaded is None:
            return False
        held: Piece = self._holder.live.checkpoint_in(loaded[0].layers, loaded[1])
        self._holder.live.put_back(held)
        self.made = held
        return True

    def _fetch(self) -> None:
        while self._wanted and len(self._coming) < AHEAD:
            file_id = self._wanted.popleft()
            self._coming[file_id] = self._store.load(file_id)

    def _arrived(self, piece: OnDisk) -> Loaded | None:
        self._fetch()
        future = self._coming.get(piece.file_id)
        if future is None:  # more files than may come at once: it is its turn now
            future = self._coming[piece.file_id] = self._store.load(piece.file_id)
        if not future.done():
            return None
        try:
            return future.result()
        except CacheFault as e:
            raise Lost(str(e), piece.file_id) from None
