"""A lane in company says what it says alone, bit by bit: joins, leaves, forks, writes, faults.

    together   [ a ][ a b ][ a b c ][ b c ][ b ]…     one forward for all that decode
    alone      [ a ][ a ][ a ] … [ b ] …              the same calls on a fresh state of each

Equal bits need a BLAS whose sums do not depend on the number of rows.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from client_replay import ARRANGED, arranged, zoo

import mlx.core as mx  # isort: skip

from everwarm.engine.lane_attention import attend_by_lane
from everwarm.engine.lane_trial import can_take_lanes
from everwarm.engine.state import ArrayPiece, ModelState
from everwarm.tokens import tokens_of

pytestmark = [
    pytest.mark.exact,
    pytest.mark.skipif(
        os.environ.get("EVERWARM_BLAS") != "reference",
        reason="needs EVERWARM_BLAS=reference, in a process of its own",
    ),
]
ONE_AT_A_TIME = {
    "llama4_text", "deepseek_v32", "glm_moe_dsa",
    "deepseek_v41", "minimax_m3_vl",
}  # fmt: skip
"""Families whose own attention cannot be given each lane's rows."""
WHATS = ["join", "leave", "undo", "fork", "written", "prefill"]
STEPS = 60
MOST_LANES = 5


def model_of(family: str) -> Any:
    return arranged(family) if family in ARRANGED else zoo.make(zoo.small(family))


class Twin:
    """A state that decodes in company, and one of the same history that never does."""

    def __init__(self, model: Any, random: Random) -> None:
        prompt = [random.randrange(400) for _ in range(random.choice([2, 9, 17, 40]))]
        self.lane, self.alone = ModelState(model, width=0), ModelState(model)
        self.says = self.read(prompt)

    def read(self, tokens: list[int]) -> int:
        """Read several tokens, each by itself."""
        out = self.lane.read(tokens_of(tokens))
        return self.compare(out, self.alone.read(tokens_of(tokens)))

    def compare(self, lane: mx.array, alone: mx.array) -> int:
        assert mx.array_equal(lane, alone), f"off by {mx.abs(lane - alone).max().item()}"
        found: Any = mx.argmax(alone[0, -1]).item()
        self.says = int(found)
        return self.says

    def undo(self) -> None:
        """Take the last token back, and say another one."""
        self.lane.undo()
        self.alone.undo()
        self.says = (self.says + 7) % 400

    def fork(self) -> Twin:
        other = object.__new__(Twin)
        other.lane = self.lane.fork(self.lane.length, None)
        other.alone = self.alone.fork(self.alone.length, None)
        other.says = (self.says + 3) % 400
        return other

    def is_written(self) -> None:
        """What the disk tier takes of a busy state, put into a new one, goes on alike."""
        lane, alone = self.lane, self.alone
        n, here = lane.length, lane.checkpoint()
        assert _same(here, alone.checkpoint())
        assert _same(lane.cut(0, n), alone.cut(0, n)) or not lane.rows_nbytes(1)


def _same(a: ArrayPiece | None, b: ArrayPiece | None) -> bool:
    if a is None or b is None:
        return a is b
    pairs = zip(_arrays(a.held), _arrays(b.held), strict=True)
    return all(mx.array_equal(x, y) for x, y in pairs)


def _arrays(held: Any) -> list[mx.array]:
    if isinstance(held, mx.array):
        return [held]
    return [a for h in held for a in _arrays(h)] if isinstance(held, (list, tuple)) else []


def step(twins: list[Twin]) -> None:
    tokens = [mx.array([t.says]) for t in twins]
    together = ModelState.read_together([t.lane for t in twins], tokens)
    for t, token, logits in zip(twins, tokens, together, strict=True):
        t.compare(logits, ModelState.read_together([t.alone], [token])[0])


@pytest.mark.parametrize("family", [*zoo.FAMILIES, *ARRANGED])
def test_a_lane_in_any_company_says_what_it_says_alone(family: str) -> None:
    model, random = model_of(family), Random(family)
    assert can_take_lanes(model) == (family not in ONE_AT_A_TIME)
    if family in ONE_AT_A_TIME:
        return
    twins = [Twin(model, random)]
    for _ in range(STEPS):
        match random.choice(
            ["join", "leave", "undo", "fork", "written", "prefill", "", "", "", ""]
        ):
            case "join" if len(twins) < MOST_LANES:
                twins.append(Twin(model, random))
            case "leave" if len(twins) > 1:
                twins.remove(random.choice(twins))
            case "fork" if len(twins) < MOST_LANES:
                twins.append(random.choice(twins).fork())
            case "undo" if twins[-1].lane.can_undo:
                step(twins)
                random.choice(twins).undo()
            case "written":
                random.choice(twins).is_written()
            case "prefill":  # a turn ends, and the next one goes on
                random.choice(twins).read([1, 2, 3])
        random.shuffle(twins)
        step(twins)


class Fuse:
    """A layer that fails once it is told to: those before it have read on."""

    def __init__(self, layer: Any) -> None:
        self._layer, self.blows = layer, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.blows:
            raise RuntimeError("the fuse blew")
        return self._layer(*args, **kwargs)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_5", "falcon_h1"])
def test_a_model_that_fails_leaves_states_that_recover(family: str) -> None:
    """Layers have read unevenly, those of all lanes; each goes back to its checkpoint."""
    model, random = model_of(family), Random(family)
    inner = getattr(model, "language_model", model)
    blocks = inner.model.layers
    blocks[-1] = fuse = Fuse(blocks[-1])
    assert can_take_lanes(model)
    twins = [Twin(model, random) for _ in range(3)]
    step(twins)
    kept = [(t.lane.length, t.says, t.lane.checkpoint()) for t in twins]
    for _ in range(3):
        ModelState.read_together([t.lane for t in twins], [mx.array([5])] * 3)
    fuse.blows = True
    with pytest.raises(RuntimeError):
        ModelState.read_together([t.lane for t in twins], [mx.array([5])] * 3)
    fuse.blows = False
    for t, (at, says, checkpoint) in zip(twins, kept, strict=True):
        if t.lane.recover(at, checkpoint):
            t.says = says
        else:  # a window that has gone round cannot
            assert family == "gemma3_text"
            return
    step(twins)


def test_nothing_is_copied_when_a_lane_joins_or_leaves() -> None:
    """Rows stay in the buffers where they are: their arrays grow in place, and by no join."""
    model, random = model_of("llama"), Random(1)
    attend_by_lane()
    twins = [Twin(model, random) for _ in range(4)]
    for t in twins:
        t.lane.reserve_to(600)
        t.alone.reserve_to(600)
    before = [t.lane.nbytes for t in twins]
    mx.eval([t.lane.caches[0].keys for t in twins])
    mx.synchronize()
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    rows = sum(before) // len(before)
    for n in (1, 2, 3, 4, 3, 2, 4, 1):
        step(twins[:n])
        mx.synchronize()
    assert [t.lane.nbytes for t in twins] == before
    assert mx.get_peak_memory() - held < rows
