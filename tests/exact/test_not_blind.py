"""Faults planted in the real state move the logits: the exact tests would see them."""

from __future__ import annotations

import contextlib

import pytest
from client_replay import Warm, zoo
from operations import OPERATIONS

from everwarm.engine import layers
from everwarm.engine.state import ArrayPiece, ModelState

pytestmark = pytest.mark.exact


class DoesNotPutBack(ModelState):
    """Layers that cannot be cut stay where they are when the others go back."""

    def put_back(self, checkpoint: ArrayPiece | None) -> None:
        if self.length == 0:
            super().put_back(checkpoint)


class TrimsRings(ModelState):
    """A wrapped ring goes back by its position only."""

    def rewind(self, at: int, checkpoint: ArrayPiece | None) -> None:
        n = self.length - at
        rings = [(c, c.keys, c.values, c._idx) for c in self._others]
        super().rewind(at, checkpoint)
        for c, c.keys, c.values, idx in rings:
            c._idx = max(idx - n, 0)


class HandsOutItsRing(ModelState):
    """A checkpoint is the ring itself, which the next token writes into."""

    def checkpoint(self) -> ArrayPiece | None:
        return ArrayPiece([(c.keys, c.values, c.offset, c._idx) for c in self._others])


class UndoesOnlyRows(ModelState):
    """A step that is taken back stays in the layers that cannot be cut."""

    def undo(self) -> None:
        for c in self._cuttable:
            layers.undo(c, None)
        self.length -= 1


class CutsOneTooEarly(ModelState):
    """Rows that are cut out begin one before their place."""

    def cut(self, start: int, end: int) -> ArrayPiece:
        return super().cut(max(start - 1, 0), end)


@pytest.mark.parametrize(
    ("state", "family", "operation"),
    [
        (DoesNotPutBack, "qwen3_5", "rewind"),
        (DoesNotPutBack, "falcon_h1", "regenerate"),
        (TrimsRings, "gemma3_text", "rewind"),
        (HandsOutItsRing, "gpt_oss", "single tokens"),
        (UndoesOnlyRows, "qwen3_5", "stop token"),
        (CutsOneTooEarly, "llama", "branch"),
        (CutsOneTooEarly, "deepseek_v32", "branch"),
    ],
)
def test_a_planted_fault_moves_the_logits(
    state: type[ModelState], family: str, operation: str
) -> None:
    warm = Warm(zoo.make(zoo.small(family)), state)
    with contextlib.suppress(AssertionError):  # a reply that changed already shows it
        OPERATIONS[operation](warm)
    assert warm.difference > 1e-4
