"""Where checkpoints are taken, and which are kept: pure functions, by their numbers."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from everwarm.cache.policy import (
    CachePolicy,
    CheckpointInfo,
    begins_turn,
    coverage,
    landing,
    least_distance,
)
from everwarm.tokens import Mark

PRODUCT = CachePolicy()
NO_CAP = 1 << 60
MARKS = (Mark(3000, "system"), Mark(9000, "user"), Mark(20_000, "last"), Mark(20_500, "prompt"))


def at(*positions: int) -> list[CheckpointInfo]:
    return [CheckpointInfo(p) for p in positions]


def test_marks_branch_and_grids_are_where_a_prefill_stops() -> None:
    found = PRODUCT.positions(0, 20_503, MARKS, branch=12_345)
    assert found == {
        512: None, 1024: None, 1536: None, 2048: None, 2560: None, 3000: "system",
        8192: None, 9000: "user", 12_345: None, 16_384: None,
        20_000: "last", 20_500: "prompt",
    }  # fmt: skip


def test_a_long_head_has_a_wider_grid_so_that_all_of_it_can_be_kept() -> None:
    found = PRODUCT.positions(0, 20_000, [Mark(20_000, "system")])
    grid = [p for p in found if p % 8192]
    assert grid == [*range(1536, 20_000, 1536), 20_000]
    assert len(grid) <= PRODUCT.max_in_head


def test_nothing_is_taken_where_the_prefill_does_not_go() -> None:
    assert list(PRODUCT.positions(9000, 20_400, MARKS)) == [16_384, 20_000]


def test_large_checkpoints_stand_further_apart() -> None:
    assert [least_distance(n) for n in (0, 5_000_000, 436_000_000)] == [8, 8, 415]
    near = (Mark(1000, "user"), Mark(1300, "last"), Mark(1310, "prompt"))
    assert list(PRODUCT.positions(0, 1400, near)) == [1000, 1300, 1310]
    assert list(PRODUCT.positions(0, 1400, near, nbytes=436_000_000)) == [1000, 1310]


def test_a_users_message_begins_at_the_end_of_the_reply_before() -> None:
    marks = (Mark(1002, "user"), Mark(2000, "last"), Mark(3000, "prompt"))
    begins = [at for at in range(0, 3100) if begins_turn(at, marks, nbytes=0)]
    assert begins == [*range(995, 1003)]
    assert begins_turn(700, marks, nbytes=436_000_000)


def test_sixteen_are_kept() -> None:
    assert PRODUCT.to_drop(at(*range(100, 1700, 100)), NO_CAP) is None
    assert PRODUCT.to_drop(at(*range(100, 1800, 100)), NO_CAP) is not None


def test_a_conversation_that_outgrew_its_head_keeps_the_heads_checkpoints() -> None:
    head = [CheckpointInfo(p, in_head=True) for p in range(512, 7700, 512)]
    turns = at(*range(20_000, 180_000, 10_000))
    assert PRODUCT.to_drop([*head, *turns], NO_CAP) is None
    crowded = [*head, *turns[:2], CheckpointInfo(35_000), *turns[2:]]
    assert PRODUCT.to_drop(crowded, NO_CAP) == len(head) + 2
    # What the first one saves is counted from the head's end on: 9000 - 7680 is the least.
    near = [*head, CheckpointInfo(9000), *turns]
    assert PRODUCT.to_drop(near, NO_CAP) == len(head)


def test_a_crowded_head_is_thinned_by_itself() -> None:
    head = [CheckpointInfo(p, in_head=True) for p in [*range(500, 8500, 500), 7900]]
    found = PRODUCT.to_drop([*sorted(head, key=lambda h: h.at), CheckpointInfo(9000)], NO_CAP)
    assert found == 15


def test_the_one_goes_whose_loss_would_have_the_fewest_tokens_read_again() -> None:
    #  0 ───── 100 ─ 120 ─── 150 ───── 300      without 120, from 100: 20 tokens; without 150, 30
    assert coverage(at(100, 120, 150, 300)) == 1
    assert coverage(at(100, 150, 160, 900)) == 2


def test_branch_and_system_weigh_four_times() -> None:
    crowded = at(100, 120, 150, 300)
    crowded[1] = replace(crowded[1], weight=4)  # 4 * 20 is more than the 30 of the third
    assert coverage(crowded) == 2


def test_what_the_last_two_requests_used_stays() -> None:
    held = [
        CheckpointInfo(100, used=3),
        CheckpointInfo(120, used=7),
        CheckpointInfo(130, used=9),
        CheckpointInfo(500, used=9),
    ]
    assert coverage(held) == 0
    assert coverage(held[1:]) is None


def test_the_end_never_goes() -> None:
    assert coverage(at(100)) is None
    assert coverage(at(100, 101)) == 0


def test_a_conversation_keeps_to_its_bytes() -> None:
    gemma = [CheckpointInfo(p, nbytes=436) for p in range(100, 600, 100)]
    assert PRODUCT.to_drop(gemma, 5 * 436) is None
    assert PRODUCT.to_drop(gemma, 4 * 436) is not None


@settings(deadline=None)
@given(st.sets(st.integers(1, 200_000), min_size=18, max_size=60))
def test_thinning_has_as_little_read_again_as_can_be(positions: set[int]) -> None:
    held = at(*sorted(positions))
    gone = PRODUCT.to_drop(held, NO_CAP)
    assert gone is not None and gone < len(held) - 1
    ends = [0, *(h.at for h in held)]
    lost = [ends[i + 1] - ends[i] for i in range(len(held) - 1)]
    assert lost[gone] == min(lost)


def test_a_request_more_likely_leaves_near_the_end_than_far_from_it() -> None:
    assert landing(99_000, 100_000, 100_000) > landing(8_000, 9_000, 100_000)
    assert landing(0, 50_000, 100_000) < landing(50_000, 99_000, 100_000)


def test_what_leaves_between_two_checkpoints_lands_at_the_first() -> None:
    parts = landing(10_000, 20_000, 50_000) + landing(20_000, 40_000, 50_000)
    assert abs(landing(10_000, 40_000, 50_000) - parts) < 1e-9
    assert landing(50_000, None, 50_000) > 0
