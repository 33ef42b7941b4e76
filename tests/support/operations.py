"""What clients do to a conversation, each as turns on a `replay.Warm`; each says where it hit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from client_replay import REPLY, Turn, Warm

from everwarm.events import CachedFrom

SYSTEM, USER, PROMPT = 12, 24, 40


def words(seed: int, n: int) -> list[int]:
    return [10 + (seed * 7919 + i * 104729 + i * i) % 499 for i in range(n)]


def first_turn(warm: Warm) -> list[int]:
    """A conversation of one turn: its tokens, reply included."""
    prompt = words(0, PROMPT)
    return prompt + warm.turn(prompt, SYSTEM, USER).reply


def next_turn(warm: Warm, history: list[int], seed: int, *, n: int = 18) -> Turn:
    return warm.turn(history + words(seed, n), SYSTEM, USER, len(history))


def warm_at(turn: Turn, at: int, *ways: CachedFrom) -> None:
    """The turn was continued from just there, or the comparison would prove nothing."""
    leased = turn.leased
    assert leased.cached_tokens == at, f"{leased} instead of {at}"
    assert not ways or leased.cached_from in ways, leased


def goes_on(warm: Warm) -> None:
    history = first_turn(warm)
    for seed in (1, 2, 3):
        turn = next_turn(warm, history, seed)
        warm_at(turn, len(history), "live")
        history = turn.tokens + turn.reply


def branches_and_comes_back(warm: Warm) -> None:
    history = first_turn(warm)
    one = next_turn(warm, history, 1)
    other = next_turn(warm, history, 2)
    warm_at(other, len(history))
    back = next_turn(warm, one.tokens + one.reply, 3)
    warm_at(back, len(one.tokens + one.reply))
    again = next_turn(warm, other.tokens + other.reply, 4)
    warm_at(again, len(other.tokens + other.reply))


def regenerates(warm: Warm) -> None:
    history = first_turn(warm)
    turn = next_turn(warm, history, 1)
    at = len(turn.tokens) - (1 if warm.cache.is_cuttable else 3)
    for _ in range(2):
        again = warm.turn(turn.tokens, SYSTEM, USER, len(history))
        warm_at(again, at)
        assert again.reply == turn.reply


def goes_on_by_single_tokens(warm: Warm) -> None:
    """Calls of one token write into rings in place, right behind a checkpoint."""
    history = first_turn(warm)
    for seed in (1, 2, 3):
        turn = warm.turn(history + words(seed, 1), SYSTEM, USER)
        warm_at(turn, len(history))


def rewinds_to_each_checkpoint(warm: Warm) -> None:
    history = first_turn(warm)
    long = next_turn(warm, history, 1)
    stops = [SYSTEM, USER, PROMPT - 3, len(history), len(long.tokens) - 3]
    for seed, at in enumerate(reversed(stops), 5):
        turn = warm.turn(long.tokens[:at] + words(seed, 14), SYSTEM, *[s for s in stops if s < at])
        warm_at(turn, at)


def resumes_a_cancelled_prefill(warm: Warm) -> None:
    history = first_turn(warm)
    prompt = history + words(1, 50)
    warm.turn(prompt, SYSTEM, USER, cancel=2)
    again = warm.opened(prompt, SYSTEM, USER)
    assert len(history) < again.leased.cached_tokens < len(prompt) - 3
    again.steps(1000)


def resumes_a_cancelled_reply(warm: Warm) -> None:
    prompt = words(0, PROMPT)
    half = warm.turn(prompt, SYSTEM, USER, cancel=8)
    assert 0 < len(half.reply) < REPLY
    history = prompt + half.reply
    warm_at(next_turn(warm, history, 1), len(history), "live")


def forks_while_it_runs(warm: Warm) -> None:
    history = first_turn(warm)
    one = warm.opened(history + words(1, 18), SYSTEM, USER, len(history)).steps(4)
    other = warm.opened(history + words(2, 18), SYSTEM, USER, len(history))
    warm_at(other, len(history), "fork")
    for _ in range(40):
        one.steps(1)
        other.steps(1)
    back = next_turn(warm, one.tokens + one.reply, 3)
    warm_at(back, len(one.tokens + one.reply))


def goes_on_behind_a_stop_token(warm: Warm) -> None:
    """The stop token was read ahead, and its step is taken back."""
    prompt, said = varied_reply(warm)
    stop = next(i for i in range(2, REPLY) if said[i] not in said[:i])
    turn = warm.turn(prompt, SYSTEM, USER, eos=frozenset({said[stop]}))
    assert turn.reply == said[:stop]
    history = prompt + turn.reply
    for seed in (1, 2):
        warm_at(next_turn(warm, history, seed), len(history))


def varied_reply(warm: Warm) -> tuple[list[int], list[int]]:
    """A prompt whose reply says something new behind its second token."""
    for seed in range(100):
        prompt = words(seed, PROMPT)
        said = Warm(warm.model).turn(prompt).reply
        if set(said[2:]) - set(said[:2]):
            return prompt, said
    raise AssertionError("the model repeats itself whatever it reads")


OPERATIONS: Final[dict[str, Callable[[Warm], None]]] = {
    "continue": goes_on,
    "branch": branches_and_comes_back,
    "regenerate": regenerates,
    "single tokens": goes_on_by_single_tokens,
    "rewind": rewinds_to_each_checkpoint,
    "resume prefill": resumes_a_cancelled_prefill,
    "resume reply": resumes_a_cancelled_reply,
    "fork": forks_while_it_runs,
    "stop token": goes_on_behind_a_stop_token,
}
