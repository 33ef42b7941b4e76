"""Policies compared by counts, through the real cache, on made-up sessions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from everwarm.cache.cache import Cache
from everwarm.cache.policy import CachePolicy, CheckpointInfo
from everwarm.lab import synthetic, traces
from everwarm.lab.simulate import (
    PRODUCT,
    VARIANTS,
    Counted,
    Score,
    Sizes,
    Variant,
    least_used,
    replay,
)
from everwarm.lab.traces import TracedSession, TracedTurn
from everwarm.tokens import Mark, common_length, tokens_of

SMALL = Sizes(token=20, checkpoint=20_000)
NAMED = {v.name: v for v in VARIANTS}
OURS = NAMED[PRODUCT]


@pytest.fixture(scope="module")
def sessions() -> list[TracedSession]:
    return [
        traces.session(synthetic.trace(seed, requests=80, scale=0.25), str(seed))
        for seed in range(4)
    ]


def score(variant: Variant, sessions: list[TracedSession], sizes: Sizes = SMALL) -> Score:
    made = Score(variant.name)
    replay(variant, sessions, sizes, made)
    return made


def test_the_product_is_what_a_cache_does_unless_told_otherwise() -> None:
    assert Cache(lambda: Counted(SMALL, False), budget=1).policy == OURS.policy == CachePolicy()
    assert OURS.policy.max_checkpoints == 16


def test_ours_beats_one_checkpoint_and_oldest_first(sessions: list[TracedSession]) -> None:
    ours = score(OURS, sessions)
    assert ours.cached_tokens > score(NAMED["1, the last end"], sessions).cached_tokens
    assert ours.cached_tokens > score(NAMED["16, oldest first"], sessions).cached_tokens
    assert ours.cached_tokens > score(NAMED["32, oldest first"], sessions).cached_tokens
    assert ours.reprocess < 1.1
    assert ours.lost_half * 4 < score(NAMED["1, the last end"], sessions).lost_half


def test_more_checkpoints_never_read_more_in_total(sessions: list[TracedSession]) -> None:
    names = ("4, by coverage", "8, by coverage", PRODUCT, "32, by coverage", "any number")
    cached = [score(NAMED[name], sessions).cached_tokens for name in names]
    assert cached == sorted(cached)


def test_branch_points_and_grids_pay(sessions: list[TracedSession]) -> None:
    ours = score(OURS, sessions).cached_tokens
    assert ours > score(NAMED["16, no branch points"], sessions).cached_tokens
    assert ours > score(NAMED["16, no grid"], sessions).cached_tokens


def test_where_every_layer_can_be_cut_only_what_is_unseen_is_read(
    sessions: list[TracedSession],
) -> None:
    ideal = score(NAMED["every layer can be cut"], sessions)
    assert ideal.prefilled_tokens == ideal.unseen_tokens
    assert ideal.lost_half == 0


def test_an_edited_message_is_gone_back_to_however_many_steps_followed() -> None:
    marks = [Mark(100, "system")]
    turns, path = [], tokens_of(range(100))
    for step in range(60):
        if step in (5, 30):  # the reply before ends two tokens earlier
            marks.append(Mark(len(path) + 2, "user"))
        path = path + tokens_of(range(1000 * step, 1000 * step + 300))
        prompt, reply = Mark(len(path) - 3, "prompt"), tokens_of(range(-9 - step, -1 - step))
        turns.append(TracedTurn(path, (*marks, prompt), reply, not step))
        path = path + reply
    edited = path[: marks[-1].at] + tokens_of(range(900_000, 900_040))
    turns.append(TracedTurn(edited, (*marks, Mark(len(edited) - 3, "prompt")), tokens_of(), False))
    told = score(OURS, [TracedSession("tool loop", tuple(turns))])
    assert told.prefilled_tokens - told.unseen_tokens == 2


def test_unseen_is_what_no_earlier_sequence_holds(sessions: list[TracedSession]) -> None:
    session = sessions[0]
    before = [tokens_of()]
    unseen = 0
    for turn in session.turns:
        unseen += max(1, len(turn.tokens) - max(common_length(b, turn.tokens) for b in before))
        before.append(turn.tokens + turn.reply)
    assert score(OURS, [session]).unseen_tokens == unseen


def test_a_conversation_keeps_its_share_in_head_rest_and_bytes(
    sessions: list[TracedSession],
) -> None:
    assert 16 < score(OURS, sessions).checkpoints_most <= 16 + 16
    capped = replace(SMALL, budget=8 * 6 * SMALL.checkpoint)
    assert score(OURS, sessions, capped).checkpoints_most < 16


def test_the_budget_holds_and_costs_little_until_it_is_small(sessions: list[TracedSession]) -> None:
    free = score(OURS, sessions)
    half = score(OURS, sessions, replace(SMALL, budget=free.cache_bytes_most // 2))
    assert half.cache_bytes_most <= free.cache_bytes_most // 2
    assert half.hit > free.hit - 0.02


def test_sessions_that_take_turns_lose_nothing_while_there_is_room(
    sessions: list[TracedSession],
) -> None:
    apart = sum(score(OURS, [s]).cached_tokens for s in sessions)
    together = score(OURS, sessions).cached_tokens
    assert together == apart


def test_equal_inputs_give_equal_counts(sessions: list[TracedSession]) -> None:
    assert score(OURS, sessions) == score(OURS, sessions)


def test_a_state_knows_when_it_is_not_its_prompts() -> None:
    state = Counted(SMALL, False)
    state.read(tokens_of(range(5)))
    kept = state.checkpoint()
    state.read(tokens_of(range(5, 10)))
    state.rewind(5, None)  # the other layers still hold ten tokens
    assert not state.holds(tokens_of(range(5)))
    state.put_back(kept)
    assert state.holds(tokens_of(range(5)))


def test_the_least_used_goes_first_and_the_end_never() -> None:
    assert (
        least_used(
            [CheckpointInfo(10, used=4), CheckpointInfo(20, used=3), CheckpointInfo(30, used=0)]
        )
        == 1
    )


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_only_what_can_never_fit_is_refused(kind: str) -> None:
    made = traces.session(synthetic.trace(1, kind=kind, scale=0.1), kind)
    sizes = Sizes(20, 100_000, 450_000)
    too_long = sum((len(t.tokens) + len(t.reply)) * 20 + 100_000 > sizes.budget for t in made.turns)
    assert score(OURS, [made], sizes).refused == too_long


@pytest.mark.parametrize("kind", ["edits", "long", "agents", "loop"])
def test_a_session_that_fills_the_budget_reads_no_more_than_by_least_used(kind: str) -> None:
    made = traces.session(synthetic.trace(0, kind=kind, scale=0.25), kind)
    sizes = Sizes(80, 109_000, 6_440_000)
    ours = score(OURS, [made], sizes)
    assert ours.cached_tokens >= score(NAMED["16, least used first"], [made], sizes).cached_tokens
