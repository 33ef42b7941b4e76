"""The engine's own loop under the same random histories as the cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
from conversations import explore
from engine_conversations import LogitsState, OnTheEngine

from everwarm.engine import lane as lanes

STEPS = int(os.environ.get("EVERWARM_MACHINE_STEPS", 20_000)) // 10


def test_the_engines_loop_gives_cold_replies_whatever_happens() -> None:
    assert explore(OnTheEngine, STEPS)["together"]


class SwapsLanes(LogitsState):
    """Each lane is given the logits of the next one."""

    @staticmethod
    def read_together(states: Sequence[Any], tokens: Sequence[Any]) -> list[Any]:
        out = LogitsState.read_together(states, tokens)
        return out[1:] + out[:1]


class ReadsTheFirstOnes(LogitsState):
    """All lanes read the first one's token."""

    @staticmethod
    def read_together(states: Sequence[Any], tokens: Sequence[Any]) -> list[Any]:
        return LogitsState.read_together(states, [tokens[0]] * len(tokens))


class UndoesTheFirst(LogitsState):
    """Whoever takes its token back puts back what the first lane held."""

    @staticmethod
    def read_together(states: Sequence[Any], tokens: Sequence[Any]) -> list[Any]:
        held = states[0].fold
        out = LogitsState.read_together(states, tokens)
        for s in states:
            s._held = held
        return out


@pytest.mark.parametrize(
    ("state", "family"),
    [(SwapsLanes, "cuttable"), (ReadsTheFirstOnes, "hybrid"), (UndoesTheFirst, "hybrid")],
)
def test_the_machine_finds(state: type[LogitsState], family: str) -> None:
    faulty = type("Faulty", (OnTheEngine,), {"families": (family,), "state": state})
    with pytest.raises(AssertionError):
        explore(faulty, 20_000)


def test_the_machine_finds_a_lane_that_keeps_the_token_behind_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Keeps(lanes.Lane):
        """Does not take back what was read ahead of the end."""

        def look(self) -> None:
            self.is_told = self.is_told or self._tell()
            if self.is_told:
                super().look()

    monkeypatch.setattr("everwarm.engine.job_run.Lane", Keeps)
    with pytest.raises(AssertionError):
        explore(OnTheEngine, 20_000)
