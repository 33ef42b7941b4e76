"""A model's state over a token sequence: `cache.store.State` in MLX. Engine thread only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache

from everwarm.cache.disk.blob import Layer
from everwarm.cache.store import Bytes
from everwarm.engine import layers, transfer
from everwarm.engine.lane import async_eval
from everwarm.engine.lanes import Company, read_on
from everwarm.engine.packing import packed
from everwarm.tokens import Tokens, tokens_of

RESERVE: Final = 16
LEAST_ROOM: Final = 512
"""Room kept ahead: at most 1/16 of the length, or 512 rows where that is more."""


TRIAL: Final = 512
"""Tokens that tell how caches of unknown classes grow."""


class ArrayPiece:
    """Arrays at rest, in `n_buffers` buffers. Never written to."""

    def __init__(self, held: list[Any], n_buffers: int | None = None) -> None:
        """`n_buffers` None: each array has its own."""
        self.held = held
        found = layers.arrays(held)
        mx.eval(found)
        self.nbytes = sum(a.nbytes for a in found)
        self.n_buffers = len(found) if n_buffers is None else n_buffers

    @classmethod
    def packed(cls, held: list[Any]) -> ArrayPiece:
        """Copies of these arrays, in as few buffers as can be."""
        return cls(*packed(held))


class ModelState:
    """Per-layer caches that have read exactly `length` tokens. Live: engine thread only."""

    def __init__(self, model: Any, *, width: int | None = None) -> None:
        """`width`: rows of a forward in which several states read on, filled up where there are
        fewer; 0: as many as there are states; None: this model reads on one state at a time."""
        self.model, self.width = model, width
        self.caches: list[Any] = make_prompt_cache(model)
        self.length = 0
        self.leaves = layers.leaves(self.caches)
        kinds = [layers.kind(c) for c in self.leaves]
        self._cuttable = [c for c, k in zip(self.leaves, kinds, strict=True) if k == "cuttable"]
        self._others = [c for c, k in zip(self.leaves, kinds, strict=True) if k != "cuttable"]
        self._recurrent = [c for c, k in zip(self.leaves, kinds, strict=True) if k == "opaque"]
        self.is_cuttable = not self._others
        self.can_undo = "unknown" not in kinds
        self._held: list[Any] = []
        self.company: Company | None = None  # whoever it reads on with; holds `_recurrent`'s
        self._joined_nbytes = 0

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in layers.arrays(self.leaves)) + self._joined_nbytes

    @property
    def checkpoint_nbytes(self) -> int:
        return sum(a.nbytes for a in layers.arrays(self._others)) + self._joined_nbytes

    @property
    def may_join(self) -> bool:
        """Whether it can read on with others: each recurrent layer has something to join."""
        if self.width is None or self.company is not None:
            return self.width is not None
        return all(a is not None for a in self._recurrent_arrays())

    def rows_nbytes(self, n: int) -> int:
        return sum(layers.row_nbytes(c) for c in self._cuttable) * n

    def read(self, tokens: Tokens[int] | mx.array) -> mx.array:
        """Feed tokens; logits of shape (1, n, vocabulary), lazy."""
        self.leave()
        ids = tokens if isinstance(tokens, mx.array) else mx.array(list(tokens))
        self.length += ids.size
        out: mx.array = self.model(ids[None], cache=self.caches)
        return out

    @staticmethod
    def read_together(states: Sequence[ModelState], tokens: Sequence[mx.array]) -> list[mx.array]:
        """Feed each state one token, shape (1,), undoably; logits of shape (1, 1, vocabulary)."""
        out: dict[int, mx.array] = {}
        width = states[0].width
        joining = [i for i, s in enumerate(states) if s.may_join]
        if len(joining) == 1 and not width:
            joining = []
        for i in set(range(len(states))) - set(joining):
            out[i] = states[i]._read_undoably(tokens[i])
        step = width or max(len(joining), 1)
        for at in range(0, len(joining), step):
            some = joining[at : at + step]
            read = read_on([states[i] for i in some], [tokens[i] for i in some])
            out.update(zip(some, read, strict=True))
        return [out[i] for i in range(len(states))]

    def enter(self, company: Company) -> None:
        """Let go of what is the company's now."""
        self.company = company
        self._joined_nbytes = sum(a.nbytes for a in self._recurrent_arrays() if a is not None)
        for c in self._recurrent:
            c.cache = [None] * len(c.cache)

    def leave(self, *, before: bool = False) -> None:
        """Take back what is its own from the company that it reads with, if there is one.

        `before`: as it was before the last token.
        """
        if self.company is None:
            return
        for c, arrays in zip(self._recurrent, self.company.part(self, before=before), strict=True):
            c.cache = arrays
        async_eval(*self._recurrent_arrays())  # else they keep the company's alive
        self.company, self._joined_nbytes = None, 0

    def _recurrent_arrays(self) -> list[Any]:
        return [a for c in self._recurrent for a in c.cache]

    def settle(self) -> None:
        """Evaluate what was fed."""
        self.leave()
        mx.eval(layers.arrays(self.leaves))

    def _read_undoably(self, token: mx.array) -> mx.array:
        self.leave()
        self._held = [layers.hold(c) for c in self.leaves]
        return self.read(token)

    def undo(self) -> None:
        """Take back the one token that `read_together` has read."""
        if self.company is not None:
            self.leave(before=True)
            self._held = [layers.hold(c) for c in self.leaves]
        for c, held in zip(self.leaves, self._held, strict=True):
            layers.undo(c, held)
        self.length -= 1

    def cut(self, start: int, end: int) -> ArrayPiece:
        return ArrayPiece.packed([layers.rows(c, start, end) for c in self._cuttable])

    def lend(self, start: int, end: int) -> ArrayPiece:
        """As `cut`, not copied: to be copied before the next step, and let go."""
        return ArrayPiece([layers.rows(c, start, end) for c in self._cuttable])

    def release(self, start: int, end: int) -> ArrayPiece:
        held: list[Any] = []
        for c in self._cuttable:
            rows = tree_map(mx.contiguous, layers.rows(c, start, end))
            mx.eval(layers.arrays([rows]))
            held.append(rows)
            c.keys = c.values = None
        return ArrayPiece(held)

    def checkpoint(self) -> ArrayPiece | None:
        if not self._others:
            return None
        self.leave()
        return ArrayPiece.packed([layers.snapshot(c) for c in self._others])

    def rewind(self, at: int, checkpoint: ArrayPiece | None) -> None:
        n = self.length - at
        for c in self._cuttable:
            assert c.trim(n) == n, "a cuttable layer trimmed less than asked"
        self.length = at
        if checkpoint is not None:
            self.put_back(checkpoint)

    def recover(self, at: int, checkpoint: ArrayPiece | None) -> bool:
        if self._others and checkpoint is None:
            return False
        for c in self._cuttable:
            c.trim(c.offset - at)
        self.length = at
        self.put_back(checkpoint)
        try:
            self.settle()
        except RuntimeError:  # a device fault: what MLX raises when arrays cannot be computed
            return False
        return all(c.offset == at for c in self._cuttable)

    def extend(self, piece: ArrayPiece, start: int, end: int, piece_start: int) -> None:
        lo, hi = start - piece_start, end - piece_start
        for c, rows in zip(self._cuttable, piece.held, strict=True):
            part = tree_map(lambda a: a[..., lo:hi, :], rows)
            if c.keys is None:
                # Copied with room for more: a view of the piece would keep all of it in memory.
                c.keys, c.values = tree_map(_with_room, part)
                if not isinstance(c.keys, mx.array):
                    c.keys, c.values = list(c.keys), list(c.values)
            else:
                layers.grow(c, end)
                _write(c.keys, part[0], start, end)
                _write(c.values, part[1], start, end)
            c.offset = end
        self.length = end
        mx.eval([(c.keys, c.values) for c in self._cuttable])

    def put_back(self, checkpoint: ArrayPiece | None) -> None:
        self.company, self._joined_nbytes = None, 0  # what it had there may not be computable
        if checkpoint is not None:
            for c, held in zip(self._others, checkpoint.held, strict=True):
                layers.put_back(c, held)

    def rows_out(self, start: int, end: int) -> Bytes:
        return transfer.rows_out(self._cuttable, start, end)

    def piece_rows_out(self, piece: ArrayPiece, start: int, end: int, piece_start: int) -> Bytes:
        return transfer.held_rows_out(piece.held, start - piece_start, end - piece_start)

    def rows_in(
        self, held: Sequence[Layer], buffers: Sequence[Any], start: int, end: int,
        piece_start: int, room: int
    ) -> None:  # fmt: skip
        room = room + max(LEAST_ROOM, room // RESERVE)
        transfer.rows_in(self._cuttable, held, buffers, (start, end), piece_start, room)
        self.length = end

    def checkpoint_out(self, piece: ArrayPiece, at: int) -> Bytes | None:
        return transfer.checkpoint_out(piece.held, self._others, at)

    def checkpoint_in(self, held: Sequence[Layer], buffers: Sequence[Any]) -> ArrayPiece:
        return ArrayPiece(transfer.checkpoint_in(held, buffers))

    def fork(self, at: int, checkpoint: ArrayPiece | None) -> Self:
        other = type(self)(self.model, width=self.width)
        if at and self._cuttable:
            other.extend(self.lend(0, at), 0, at, 0)
        other.length = at
        other.put_back(checkpoint if checkpoint is not None else self.checkpoint())
        return other

    def reserve(self) -> None:
        self.leave()  # at rest it holds its own, and nobody else's
        need = self.length + max(256, self.length // RESERVE // 2)
        for c in self._cuttable:
            if layers.capacity(c) < need:
                layers.grow(c, self.length + max(LEAST_ROOM, self.length // RESERVE))

    def reserve_to(self, rows: int) -> None:
        """Room for a prompt whose length is known: the buffer grows once instead of per chunk."""
        for c in self._cuttable:
            layers.grow(c, rows)


def bytes_at(model: Any, chunk: int) -> Callable[[int], int]:
    """The most bytes that a state of n tokens takes, from a trial with one token.

    That includes the room that buffers keep ahead. `chunk`: how many tokens one call reads at most.
    Caches of unknown classes are tried with some more tokens, since they may grow with each; one
    that shrinks counts as it was at its largest.
    """
    state = ModelState(model)
    state.read(tokens_of([0]))
    state.settle()
    known = [c for c in state.leaves if layers.kind(c) != "unknown"]
    unknown = [c for c in state.leaves if layers.kind(c) == "unknown"]
    fixed, growth = sum(a.nbytes for a in layers.arrays(unknown)), 0
    if unknown:
        state.read(tokens_of([0] * TRIAL))
        state.settle()
        later = sum(a.nbytes for a in layers.arrays(unknown))
        growth = max(0, -(-(later - fixed) // TRIAL))

    def most(rows: int) -> int:
        room = rows + max(LEAST_ROOM, rows // RESERVE)
        return fixed + growth * room + sum(layers.bytes_at(c, room, chunk) for c in known)

    return most


def _with_room(rows: mx.array) -> mx.array:
    pad = mx.zeros((*rows.shape[:-2], LEAST_ROOM, rows.shape[-1]), dtype=rows.dtype)
    return mx.concatenate([rows, pad], axis=-2)


def _write(into: Any, rows: Any, start: int, end: int) -> None:
    if isinstance(into, mx.array):
        into[..., start:end, :] = rows
        return
    for a, r in zip(into, rows, strict=True):
        a[..., start:end, :] = r
