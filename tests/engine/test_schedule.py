"""Time is shared by seconds: a long prefill never starves a reply that is being written."""

from __future__ import annotations

import pytest

from everwarm.engine.schedule import Schedule

DECODE_MS, CHUNK_MS = 20, 250


def simulate(share: float, total_ms: int) -> tuple[int, int]:
    """Tokens and chunks within a time, when one job decodes while another prefills."""
    schedule = Schedule(share)
    schedule.add("reply")
    schedule.add("prompt")
    now_ms, tokens, chunks = 0, 0, 0
    while now_ms < total_ms:
        if schedule.next(["reply", "prompt"]) == "reply":
            now_ms, tokens = now_ms + DECODE_MS, tokens + 1
            schedule.charge("reply", DECODE_MS / 1000, prefilling=False)
        else:
            now_ms, chunks = now_ms + CHUNK_MS, chunks + 1
            schedule.charge("prompt", CHUNK_MS / 1000, prefilling=True)
    return tokens, chunks


def test_a_reply_keeps_half_of_its_tokens_while_another_prompt_is_read() -> None:
    alone = 60_000 // DECODE_MS
    tokens, chunks = simulate(0.5, 60_000)
    assert tokens >= alone / 2 - CHUNK_MS / DECODE_MS
    assert chunks * CHUNK_MS >= 0.48 * 60_000


@pytest.mark.parametrize("share", [0.1, 0.25, 0.75])
def test_the_share_is_a_setting(share: float) -> None:
    _, chunks = simulate(share, 60_000)
    assert chunks * CHUNK_MS == pytest.approx(share * 60_000, rel=0.1)


def test_a_newcomer_is_next_and_does_not_catch_up_on_the_past() -> None:
    schedule = Schedule(0.5)
    schedule.add("old")
    schedule.charge("old", 100.0, prefilling=False)
    schedule.add("new")
    schedule.charge("old", 0.01, prefilling=False)
    assert schedule.next(["old", "new"]) == "new"
    schedule.charge("new", 0.02, prefilling=False)
    assert schedule.next(["old", "new"]) == "old"


def test_who_waits_is_no_company_and_is_not_charged() -> None:
    schedule = Schedule(0.25)
    schedule.add("prompt")
    schedule.charge("prompt", 1.0, prefilling=True)
    assert not schedule.has_company
    schedule.add("begins late")
    assert schedule.has_company
    schedule.charge("begins late", 0.1, prefilling=False)
    assert schedule.next(["prompt", "begins late"]) == "prompt"
