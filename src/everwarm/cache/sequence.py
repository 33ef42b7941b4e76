"""One sequence: the tokens that were read and the state that read them, changed only together.

    tokens   [0 ................................ length)
    rows     of layers that can be cut: always [0, length)
    end      where the other layers stand: `length`, or None while they are on their way

Nobody else changes tokens or state, so they cannot differ in length. A sequence that is being
restored has rows, which others may copy, but no end: it cannot be read on, and nobody can take
what its other layers hold for the state at some position.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

from everwarm.cache.disk.blob import Layer
from everwarm.cache.store import Piece, State
from everwarm.tokens import Tokens, tokens_of


class Sequence:
    """Tokens and their state. Live: engine thread only.

    Where a call raises, `end` is None, and only `recover` gives the sequence an end again.
    """

    __slots__ = ("_end", "_is_ahead", "_live", "_tokens")

    def __init__(self, live: State) -> None:
        assert live.length == 0, "a sequence begins with a state that has read nothing"
        self._live = live
        self._tokens = tokens_of()
        self._end: int | None = 0
        self._is_ahead = False

    @property
    def tokens(self) -> Tokens[int]:
        """What was read. Not to be changed by the caller."""
        return self._tokens

    @property
    def length(self) -> int:
        return len(self._tokens)

    @property
    def end(self) -> int | None:
        """`length` where every layer stands there; None: the other layers do not."""
        return self._end

    @property
    def is_ahead(self) -> bool:
        """A token was read that nobody has looked at."""
        return self._is_ahead

    @property
    def live(self) -> State:
        """The state, to be looked at. Changes go through the sequence."""
        return self._live

    @property
    def nbytes(self) -> int:
        return self._live.nbytes

    @property
    def is_cuttable(self) -> bool:
        return self._live.is_cuttable

    # Reading on

    def prefill(self, tokens: Tokens[int]) -> None:
        """Read tokens, and wait until they are read."""
        self._feed(tokens)
        self._live.settle()
        self._take(tokens)

    def read(self, tokens: Tokens[int]) -> Any:
        """Read tokens; what the model makes of them, not evaluated yet."""
        out = self._feed(tokens)
        self._take(tokens)
        return out

    def read_ahead(self, token: Any) -> Any:
        """Read one token that nobody has looked at yet; `look` or `undo` must follow."""
        return read_together([self], [token])[0]

    def look(self, token: int) -> None:
        """Note which token `read_ahead` has read."""
        assert self._is_ahead, "no token was read ahead"
        self._is_ahead = False
        self._take(tokens_of([token]))

    def settle(self) -> None:
        """Wait until all that was read is read; where the model failed at it, this raises."""
        assert self._end == self.length, "only a whole sequence can be settled"
        self._end = None
        self._live.settle()
        self._end = self.length

    def undo(self) -> None:
        """Take back the token that was read ahead."""
        assert self._is_ahead, "no token was read ahead"
        self._live.undo()
        self._is_ahead = False
        self._end = self.length

    def _feed(self, tokens: Any) -> Any:
        assert self._end == self.length, "only a whole sequence can be read on"
        self._end = None
        return self._live.read(tokens)

    def _take(self, tokens: Tokens[int]) -> None:
        self._tokens.extend(tokens)
        self._end = self.length
        assert self._live.length == self.length, "a state and its tokens differ in length"

    # Going back, and parts of it

    def cut(self, start: int, end: int) -> Piece:
        """Copy the rows [start, end) out."""
        assert end <= self.length, "rows that were not read"
        return self._live.cut(start, end)

    def release(self, start: int, end: int) -> Piece:
        """Move the rows [start, end) out, a layer at a time; the sequence is of no more use."""
        assert end <= self.length, "rows that were not read"
        self._end = None
        return self._live.release(start, end)

    def checkpoint(self) -> Piece | None:
        """What the layers that cannot be cut hold here; None where there are no such layers."""
        assert self._end == self.length, "a checkpoint of layers that stand elsewhere"
        return self._live.checkpoint()

    def rewind(self, at: int, checkpoint: Piece | None) -> None:
        """Go back to `at`. Without a checkpoint the other layers follow by `put_back`."""
        stays = self.is_cuttable or checkpoint is not None or at == self._end
        self._end = None
        self._live.rewind(at, checkpoint)
        self._tokens = self._tokens[:at]
        self._end = at if stays else None

    def recover(self, at: int, checkpoint: Piece | None) -> bool:
        """Go back to `at` after a failed call. False: the sequence is of no more use."""
        self._is_ahead, self._end = False, None
        if at > self.length or not self._live.recover(at, checkpoint):
            return False
        self._tokens, self._end = self._tokens[:at], at
        return True

    def fork(self, at: int, checkpoint: Piece | None) -> Sequence:
        """An independent copy of the first `at` tokens, whole with a checkpoint of this position.

        Without one it is whole only from this sequence's own end; elsewhere `put_back` must follow.
        """
        own = at == self._end
        is_whole = own or self.is_cuttable or checkpoint is not None
        other = Sequence.__new__(type(self))
        other._live = self._live.fork(at, None if own else checkpoint)
        other._tokens, other._is_ahead = self._tokens[:at], False
        other._end = at if is_whole else None
        return other

    # Growing from what was read before

    def extend(
        self, piece: Piece, start: int, end: int, piece_start: int, tokens: Tokens[int]
    ) -> None:
        """Put rows [start, end) of a piece behind the present ones, read from these tokens."""
        self._begin_extension(start, end, tokens)
        self._live.extend(piece, start, end, piece_start)
        self._end_extension(tokens)

    def rows_in(
        self, held: Many[Layer], buffers: Many[Any], start: int, end: int,
        piece_start: int, room: int, tokens: Tokens[int],
    ) -> None:  # fmt: skip
        """As `extend`, from bytes that `rows_out` gave. `room`: how many rows will come."""
        self._begin_extension(start, end, tokens)
        self._live.rows_in(held, buffers, start, end, piece_start, room)
        self._end_extension(tokens)

    def put_back(self, checkpoint: Piece | None) -> None:
        """Set the other layers to a checkpoint taken at `length`; None: there are none."""
        assert checkpoint is not None or self.is_cuttable, "no checkpoint for layers that need one"
        self._end = None
        self._live.put_back(checkpoint)
        self._end = self.length

    def checkpoint_in(self, held: Many[Layer], buffers: Many[Any]) -> Piece:
        """A checkpoint from bytes that `checkpoint_out` gave."""
        return self._live.checkpoint_in(held, buffers)

    def _begin_extension(self, start: int, end: int, tokens: Tokens[int]) -> None:
        assert start == self.length and end - start == len(tokens), "rows of other positions"
        self._end = None

    def _end_extension(self, tokens: Tokens[int]) -> None:
        self._tokens = self._tokens + tokens
        self._end = self.length if self.is_cuttable else None

    # Room

    def reserve(self) -> None:
        """Make room for what will come, so that the next continuation moves no bytes."""
        self._live.reserve()

    def reserve_to(self, rows: int) -> None:
        """Make room for so many rows at once."""
        self._live.reserve_to(rows)


def read_together(sequences: Many[Sequence], tokens: Many[Any]) -> list[Any]:
    """`read_ahead` of several sequences of one model, in one call where the model can do that."""
    for s in sequences:
        assert s._end == s.length, "only a whole sequence can be read on"
    for s in sequences:
        s._end = None
    states = [s.live for s in sequences]
    out = states[0].read_together(states, tokens) if states else []
    for s in sequences:
        s._is_ahead = True
    return out
