"""Planted faults: each must make the machine of conversations fail, or the machine is blind.

Each fault is one that a cache of real layers could have. The same machine without them passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conversations import Conversations, explore

from everwarm.cache.cache import Cache
from everwarm.cache.sequence import Sequence
from everwarm.cache.store import Piece
from everwarm.cache.tree import Holder, Node
from everwarm.testing import OraclePiece, OracleState
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
    faulty = type("Faulty", (Conversations,), {"families": (family,), "state": state})
    with pytest.raises(AssertionError, match="a warm reply is not the cold one"):
        explore(faulty, 6000)


class NeverUneven(Sequence):
    """Takes the other layers to stand where the rows end, also while a checkpoint is on its way."""

    def rewind(self, at: int, checkpoint: Piece | None) -> None:
        super().rewind(at, checkpoint)
        self._end = self.length

    def _end_extension(self, tokens: Tokens[int]) -> None:
        super()._end_extension(tokens)
        self._end = self.length


class ForksWhatIsRestored(Cache):
    def new_sequence(self) -> Sequence:
        return NeverUneven(self._new_live())


class PromisesNothing(Cache):
    """Counts busy states at what they hold now, not at what they may grow to."""

    def __init__(self, new_live: Any, **more: Any) -> None:
        super().__init__(new_live, **more | {"bytes_at": lambda rows: 0})


class TakesCheckpointsAnyway(Cache):
    """Asks nobody for the room that a checkpoint takes."""

    def _take_checkpoint(self, holder: Holder, node: Node) -> None:
        node.checkpoint = holder.sequence.checkpoint()
        self.memory.weigh(node.checkpoint)


class KeepsWhatWasLetGo(Cache):
    """States that were let go stay with those who still have something to write of them."""

    def __init__(self, new_live: Any, **more: Any) -> None:
        super().__init__(new_live, **more)
        self.kept: list[Holder] = []

    def spill(self, holder: Holder) -> None:
        self.kept = [*self.kept[-3:], holder]
        super().spill(holder)


class LeavesItAtAnError(Cache):
    """What raised half-way stays as it is, busy for ever."""

    @contextmanager
    def _dropped_on_error(self, holder: Holder) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    ("cache", "family", "what"),
    [
        (ForksWhatIsRestored, "mixed", "."),
        (ForksWhatIsRestored, "hybrid", "a warm reply is not the cold one"),
        (PromisesNothing, "cuttable", "Account"),
        (TakesCheckpointsAnyway, "hybrid", "Account"),
        (KeepsWhatWasLetGo, "mixed", "a state stays alive"),
        (LeavesItAtAnError, "mixed", "."),
    ],
)
def test_the_machine_finds_in_the_cache(cache: type[Cache], family: str, what: str) -> None:
    faulty = type("Faulty", (Conversations,), {"families": (family,), "cache": cache})
    with pytest.raises(AssertionError, match=what):
        explore(faulty, 150_000)
