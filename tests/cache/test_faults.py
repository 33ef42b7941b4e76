"""Planted faults: each must make the machine of conversations fail, or the machine is blind.

Each fault is one that a cache of real layers could have. The same machine without them passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conversations import Conversations, explore

from everwarm.cache.cache import Cache
from everwarm.testing import Layer, OraclePiece, OracleState
from everwarm.tokens import Tokens


class LosesAToken(OracleState):
    """Rows that are joined to a state begin one too late."""

    def extend(self, piece: OraclePiece, start: int, end: int, piece_start: int) -> None:
        late = OraclePiece(piece.nbytes, piece.rows[1:])
        super().extend(late, start, end, piece_start)


class DoublesAToken(OracleState):
    """Rows that are joined to a state begin with one that the state has already."""

    def extend(self, piece: OraclePiece, start: int, end: int, piece_start: int) -> None:
        twice = OraclePiece(piece.nbytes, piece.rows[:1] + piece.rows)
        super().extend(twice, start, end, piece_start)


class CheckpointsOneTooEarly(OracleState):
    """A checkpoint holds what the layers were before the last token."""

    def read(self, tokens: Tokens[int]) -> None:
        super().read(tokens[:-1])
        self._before = super().checkpoint()
        super().read(tokens[-1:])

    def checkpoint(self) -> OraclePiece | None:
        return self._before if self.length else super().checkpoint()


class DoesNotRewindFold(OracleState):
    """Going back leaves a recurrent layer as it is."""

    def put_back(self, checkpoint: OraclePiece | None) -> None:
        fold = self.fold
        super().put_back(checkpoint)
        self.fold = fold if self.length else 0


class TrimsTheRing(OracleState):
    """Going back moves the ring's position only, although it has wrapped."""

    def rewind(self, at: int, checkpoint: OraclePiece | None) -> None:
        ring = self.ring
        super().rewind(at, checkpoint)
        self.ring = ring


class KeepsTheStopToken(OracleState):
    """The stop token is taken off the rows, but stays in a recurrent layer."""

    def undo(self) -> None:
        fold = self.fold
        super().undo()
        self.fold = fold


class SharesAPiece(OracleState):
    """A state goes on writing into what it handed out, as a view of its buffer would."""

    def checkpoint(self) -> OraclePiece | None:
        held = super().checkpoint()
        if held is not None:
            object.__setattr__(held, "ring", self.ring)
        return held


@pytest.mark.parametrize(
    ("state", "family"),
    [
        (LosesAToken, "cuttable"),
        (LosesAToken, "mixed"),
        (DoublesAToken, "cuttable"),
        (DoublesAToken, "hybrid"),
        (CheckpointsOneTooEarly, "hybrid"),
        (CheckpointsOneTooEarly, "windowed"),
        (DoesNotRewindFold, "hybrid"),
        (DoesNotRewindFold, "recurrent"),
        (TrimsTheRing, "windowed"),
        (KeepsTheStopToken, "hybrid"),
        (SharesAPiece, "windowed"),
    ],
)
def test_the_machine_finds(state: type[OracleState], family: str) -> None:
    class Faulty(Conversations):
        families = (family,)

        def new_cache(self, layers: Sequence[Layer], budget: int) -> Cache:
            return Cache(lambda: state(layers), budget=budget, bytes_at=self.bytes_at)

    with pytest.raises(AssertionError, match="a warm reply is not the cold one"):
        explore(Faulty, 3000)
