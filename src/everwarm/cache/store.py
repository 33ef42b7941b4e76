"""What the cache holds, as the cache sees it: live states and resting pieces, never their arrays.

`engine/state.py` implements both; `testing.py` does with literal token ids.
All calls happen on the engine's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from everwarm.cache.disk.blob import Layer

Bytes = tuple[tuple[Layer, ...], list[Any]]
"""Layers as they are written down, and one buffer for each array in them."""


class Piece(Protocol):
    """A resting part of a state: rows of the cuttable layers, or the other layers at a position."""

    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A piece that rests on disk: a file of so many bytes. It takes no memory."""

    file_id: str
    nbytes: int


class State(Protocol):
    """What a model remembers of the first `length` tokens of a sequence; can be continued.

    `is_cuttable`: it can be rewound to any position; else only to checkpoints and to `length`.
    Only its `Sequence` calls what changes it.
    """

    @property
    def length(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def is_cuttable(self) -> bool: ...
    @property
    def can_undo(self) -> bool:
        """Whether `undo` works."""

    @property
    def checkpoint_nbytes(self) -> int:
        """Bytes that a checkpoint taken now would take; 0 where every layer can be cut."""

    def rows_nbytes(self, n: int) -> int:
        """Bytes that a piece of n rows would take."""

    def read(self, tokens: Any) -> Any:
        """Read tokens, or an array of one; what the model makes of them, perhaps not evaluated."""

    def settle(self) -> None:
        """Evaluate what was read."""

    @staticmethod
    def read_together(states: Sequence[Any], tokens: Sequence[Any]) -> list[Any]:
        """Let each state of one model read one token, undoably; what the model makes of each."""

    def undo(self) -> None:
        """Take back the one token that `read_together` has read."""

    def cut(self, start: int, end: int) -> Piece:
        """Copy the cuttable layers' rows [start, end) out."""

    def release(self, start: int, end: int) -> Piece:
        """As `cut`, but each layer's rows are freed once copied: the state is of no more use."""

    def checkpoint(self) -> Piece | None:
        """What the other layers hold at `length`; None where there are no others."""

    def rewind(self, at: int, checkpoint: Piece | None) -> None:
        """Go back to `at` <= `length`. Without a checkpoint only where every layer is cuttable."""

    def recover(self, at: int, checkpoint: Piece | None) -> bool:
        """Go back to `at` after a failed step, which may have left layers uneven.

        False: it cannot be done, and the state is of no more use.
        """

    def extend(self, piece: Piece, start: int, end: int, piece_start: int) -> None:
        """Write rows [start, end) of a piece that begins at `piece_start` behind `length` == start.

        The other layers are left uneven; a `put_back` must follow.
        """

    def put_back(self, checkpoint: Piece | None) -> None:
        """Set the other layers to a checkpoint taken at the present `length`."""

    def fork(self, at: int, checkpoint: Piece | None) -> Self:
        """An independent copy of the first `at` tokens' state. `at` == `length` needs none."""

    def rows_out(self, start: int, end: int) -> Bytes:
        """The cuttable layers' rows [start, end), copied out of the engine's arrays."""

    def piece_rows_out(self, piece: Piece, start: int, end: int, piece_start: int) -> Bytes:
        """As `rows_out`, from a piece that `cut` gave and that begins at `piece_start`."""

    def rows_in(
        self, held: Sequence[Layer], buffers: Sequence[Any], start: int, end: int,
        piece_start: int, room: int
    ) -> None:  # fmt: skip
        """As `extend`, from what `rows_out` gave. Makes room for `room` rows, and some ahead."""

    def checkpoint_out(self, piece: Piece, at: int) -> Bytes | None:
        """A checkpoint that was taken at `at`, copied out; None: it cannot be written down."""

    def checkpoint_in(self, held: Sequence[Layer], buffers: Sequence[Any]) -> Piece:
        """From what `checkpoint_out` gave."""

    def reserve(self) -> None:
        """Make room for what will come, so that the next continuation moves no bytes."""

    def reserve_to(self, rows: int) -> None:
        """Make room for so many rows at once."""
